"""Training the located parameters: breadth-first, and depth-first as the baseline."""

from factpatch.training.breadth_first import breadth_first
from factpatch.training.depth_first import depth_first
from factpatch.training.steps import Progress, TrainingResult

__all__ = ["Progress", "TrainingResult", "breadth_first", "depth_first"]
