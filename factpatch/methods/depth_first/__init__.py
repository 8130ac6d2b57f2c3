"""Depth-first training: each edit to convergence before the next; the baseline."""
