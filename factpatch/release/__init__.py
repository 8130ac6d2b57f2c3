"""A release: how it starts, what it records, and the registry that it goes to."""
