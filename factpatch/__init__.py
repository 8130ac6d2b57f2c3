"""Change facts inside a causal language model: read edits, find where to write, train, measure, patch.

docs/architecture.md has the packages, their imports, and the words that they share.
"""
