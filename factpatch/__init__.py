"""Change facts inside a causal language model: read edits, find where to write, train, measure, patch."""
