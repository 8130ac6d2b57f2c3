"""A causal language model: loading it, its parts and locations, its files, and forward passes."""
