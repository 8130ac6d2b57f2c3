"""Breadth-first training (LocFT-BF): epochs over all edits."""
