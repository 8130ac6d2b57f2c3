"""Training the located parameters: breadth-first, and depth-first as the baseline."""

from factpatch.training.breadth_first import breadth_first
from factpatch.training.depth_first import depth_first
from factpatch.training.steps import Progress, TrainingResult

METHODS = {"breadth-first": breadth_first, "depth-first": depth_first}

__all__ = ["METHODS", "Progress", "TrainingResult", "breadth_first", "depth_first"]
