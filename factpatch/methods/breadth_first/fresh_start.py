"""How a fresh run trains: all edits are due at first, learnt ones ever more rarely, until a check finds all learnt."""

from __future__ import annotations

import torch

from factpatch.methods.breadth_first.learning_rate_schedule import LearningRateSchedule
from factpatch.methods.breadth_first.preservation_schedule import preserved_in_epoch
from factpatch.methods.breadth_first.run import Run
from factpatch.settings.config import TrainingSettings


class FreshStart:
    """Training from the base model's values, or from others that nothing is known of."""

    def schedule(self, settings: TrainingSettings) -> LearningRateSchedule:
        """Step sizes over all epochs."""
        return LearningRateSchedule.of(settings)

    def prepare(self, run: Run) -> bool:
        """Nothing is known before the first epoch, so all is to be trained."""
        return False

    def order(self, run: Run) -> torch.Tensor:
        """Rows of edits that are due, all without revisits; and preserved ones drawn anew."""
        settings, preserved = run.settings, len(run.rows.preserved)
        due = run.reviews.due(run.position.epoch) if settings.revisit else torch.arange(len(run.rows.taught))
        drawn = torch.randperm(preserved, generator=run.generator)
        return run.shuffled(due, drawn[: preserved_in_epoch(settings.preservation, len(due), preserved)])

    def batch_rows(self, run: Run) -> int:
        """Rows of a mini-batch in this epoch."""
        return run.settings.rows_a_step(len(run.order))

    def finished(self, run: Run) -> bool:
        """Whether training may stop after this epoch: without revisits by its mean loss, else by a check of all rows of
        edits, made once enough were found learnt at their last visits and few preserved rows stand moved: edits are
        learnt sooner than what they pull along comes back."""
        if not run.settings.revisit:
            return run.position.losses[-1] < run.settings.stop_loss
        return run.converged(len(run.rows.augmented), settled=run.preservation.settled)

    def unsure(self, run: Run) -> torch.Tensor:
        """Rows of edits that count as not learnt when the run ends."""
        return run.reviews.unsure()
