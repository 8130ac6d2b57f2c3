"""AlphaEdit: MEMIT's change, kept to directions that general text does not use."""
