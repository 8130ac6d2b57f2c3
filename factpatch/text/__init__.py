"""Texts as people write them: their words, the blank between a prompt and its target, well-known names."""
