"""Settings of a run: what can be configured, with defaults and limits."""
