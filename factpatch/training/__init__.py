"""Training the located parameters: breadth-first, and depth-first as the baseline."""

from factpatch.training.breadth_first import Survival, breadth_first
from factpatch.training.depth_first import depth_first
from factpatch.training.steps import Progress, TrainingResult

__all__ = ["Progress", "Survival", "TrainingResult", "breadth_first", "depth_first"]
