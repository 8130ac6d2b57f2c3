"""UltraEdit's settings."""

from __future__ import annotations

from pydantic.dataclasses import dataclass

from factpatch.settings.training import SECTION, Count, StepSize

ROWS_A_PASS = 10  # edits whose tokens share one mean loss, as the authors have it


@dataclass(frozen=True, config=SECTION)
class UltraEditSettings:
    """The authors' own names and values; `lr` is theirs for models of 7B, small ones need more."""

    lr: StepSize = 1e-6  # of the change for a hidden state and its gradient
    chunk: Count = 100  # edits that are solved for together
