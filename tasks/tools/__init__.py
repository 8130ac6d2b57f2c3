"""Outside tools that several steps need, a file each; steps import from here, and never each other."""
