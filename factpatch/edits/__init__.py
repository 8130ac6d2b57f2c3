"""Edit requests: their form, reading, checking and folding."""
