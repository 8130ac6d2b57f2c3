"""Outside tools as the steps need them; the steps import from here, and never each other."""
