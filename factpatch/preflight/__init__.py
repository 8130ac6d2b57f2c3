"""Before an edit run: what it will take, and what this machine has."""
