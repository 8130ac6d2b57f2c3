"""Scripts whose figures stand in docs/."""
