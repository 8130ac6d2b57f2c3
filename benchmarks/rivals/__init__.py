"""Every way to write facts into a model, and one that does without, measured alike: docs/rivals.md."""
