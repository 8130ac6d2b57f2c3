"""How a warm-started run trains: what an earlier patch holds is verified, and then mostly visited in turn.

Such a run is gentler and shorter than a fresh one: batches are sized by what is due alone, steps are half as large and
fall within the first epochs. Then it visits only what does not hold, most often what is not surely right, and ends when
a check finds that all is.
"""

from __future__ import annotations

import torch

from factpatch.methods.breadth_first.learning_rate_schedule import LearningRateSchedule
from factpatch.methods.breadth_first.preservation_schedule import preserved_in_epoch
from factpatch.methods.breadth_first.run import CHECK_ROWS, Run, review_all
from factpatch.settings.config import TrainingSettings

SPAN, STEP_SIZE = 0.16, 0.5  # shares of epochs and of the step size
LEAST_STEPS = 100  # on the way of the step size down
PRESERVED_RATIO = 1.34  # times as many preserved rows as a fresh run visits, in the first epochs
WRONG_ROWS_REPEATED, REPEATS = 16, 3  # in the last epochs, and how often


class WarmStart:
    """Training from the values of an earlier patch, which hold most edits already."""

    def schedule(self, settings: TrainingSettings) -> LearningRateSchedule:
        """Smaller step sizes that fall earlier."""
        return LearningRateSchedule.of(settings, STEP_SIZE, SPAN, LEAST_STEPS)

    def prepare(self, run: Run) -> bool:
        """Verify first what the values hold: is there nothing to train?"""
        review_all(run.stepper, run.reviews, -1)
        run.reviews.line_up(run.generator)
        run.position.to_learn = len(run.reviews.due(0))
        return run.learnt(run.reviews.unsure(), self._augmented(run))

    def order(self, run: Run) -> torch.Tensor:
        """Rows of edits that are due, and preserved ones in turn.

        The first epochs visit as many rows that hold as are due, and bring back preserved ones that moved, while steps
        are large enough. What `least` asks shrinks with what is due, as an epoch that visits a few rows more of
        what is new moves little.
        """
        due, preserved = self.due(run), len(run.rows.preserved)
        share = min(1.0, len(due) / run.position.to_learn)
        count = preserved_in_epoch(run.settings.preservation, len(due), preserved, share)
        if self._late(run, run.position.epoch):
            return run.shuffled(due, run.preservation.draw(count, returning=False))
        drawn = run.preservation.draw(min(preserved, round(PRESERVED_RATIO * count)), returning=True)
        return run.shuffled(torch.cat([due, run.reviews.turns(len(due))]), drawn)

    def due(self, run: Run) -> torch.Tensor:
        """Rows of edits that are not learnt, or whose wait is over.

        Rows that hold come along only until there are as many as in the first epoch, so that a run's cost does not grow
        with all that was learnt before. In its last epochs what is not steady is due, and a few rows that are wrong
        several times.
        """
        position, reviews = run.position, run.reviews
        if self._late(run, position.epoch):
            few = reviews.hardest(reviews.wrong(), WRONG_ROWS_REPEATED)
            return torch.cat([reviews.hardest(reviews.unsteady(), position.to_learn), few.repeat(REPEATS)])
        return reviews.hardest(reviews.due(position.epoch), max(position.to_learn, len(reviews.wrong())))

    def batch_rows(self, run: Run) -> int:
        """Rows of a mini-batch: few where few are to be learnt, however many are visited beside them."""
        return run.settings.rows_a_step(min(len(run.order), run.position.to_learn))

    def finished(self, run: Run) -> bool:
        """Whether training may stop after this epoch, as all is learnt: all rows are checked when the first epochs end,
        and after each of the last ones."""
        if self._late(run, run.position.epoch):
            return self._all_right(run)
        if self._late(run, run.position.epoch + 1):
            run.review_all()
            return run.learnt(run.reviews.wrong(), self._augmented(run))
        return run.converged(self._augmented(run))

    def unsure(self, run: Run) -> torch.Tensor:
        """Rows of edits that count as not learnt when the run ends: those that are not surely right."""
        return run.reviews.wrong()

    def _all_right(self, run: Run) -> bool:
        """Is all surely right? Rows that were hardest at their last visit come first, and the look ends where enough
        are found wrong and a part holds no further one: the next epoch visits those, and the next look comes to the
        rest."""
        reviews, augmented = run.reviews, self._augmented(run)
        count = len(run.rows.taught)
        for part in reviews.hardest(torch.arange(count), count).split(CHECK_ROWS):
            reviews.note(part, run.stepper.look(part.tolist()), run.position.epoch)
            wrong = reviews.wrong()
            if not run.learnt(wrong, augmented) and not torch.isin(part, wrong).any():
                return False
        return run.learnt(reviews.wrong(), augmented)

    def _late(self, run: Run, epoch: int) -> bool:
        """Have the first epochs ended when that epoch begins?"""
        return epoch >= self.schedule(run.settings).span

    def _augmented(self, run: Run) -> int:
        """Augmented rows of which a few need not be learnt: not those of the earlier run."""
        return min(len(run.rows.augmented), run.position.to_learn or len(run.rows.augmented))
