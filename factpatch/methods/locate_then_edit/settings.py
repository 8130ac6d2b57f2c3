"""Settings that MEMIT and AlphaEdit share, by the names that their authors' code gives them, and the work they make."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic.dataclasses import dataclass

from factpatch.methods.base import TrainingRows
from factpatch.settings.training import SECTION, Count, NotNegative, StepSize

if TYPE_CHECKING:  # the command line reads settings without torch
    from factpatch.methods.workload import ModelShape, Workload

PREFIXES = ("The", "Therefore", "Because", "I", "You")  # what unrelated beginnings of an edit's prompt begin with
PREFIX_TOKENS = 10  # that the model goes on with
EDITS_AT_ONCE = 8  # whose target values are optimised in one pass, each in all its contexts
MOMENT_BYTES = 32  # of a layer's second moment, for each parameter of a matrix that reads four times what it writes


@dataclass(frozen=True, config=SECTION)
class ValueSettings:
    """How target values are optimised, and what the keys' statistics are drawn from; values as for Llama-3-8B."""

    seed: int = 0  # of the texts that the model makes up
    v_lr: StepSize = 0.1  # Adam's, for the change of a hidden state
    v_num_grad_steps: Count = 25
    v_weight_decay: NotNegative = 0.5
    clamp_norm_factor: NotNegative = 0.75  # largest change, as a share of the hidden state's norm
    kl_factor: NotNegative = 0.0625  # of the divergence of what is said after the subject alone
    statistics_tokens: Count = 8192  # of the model's own text


def value_workload(training: ValueSettings, rows: TrainingRows, shape: ModelShape, matrices: int) -> Workload:
    """The passes of the target values, in a prompt's contexts, and so many square matrices of doubles a layer."""
    from factpatch.methods.workload import Workload, one_pass
    from factpatch.models.encoding import Encoded

    longer = (-1,) * (PREFIX_TOKENS + 2)
    contexts = [Encoded(longer + row.ids, len(longer) + row.prompt_length) for row in rows.edits]
    parts = [contexts[start : start + EDITS_AT_ONCE] for start in range(0, len(contexts), EDITS_AT_ONCE)]
    passes = [one_pass(part * (len(PREFIXES) + 2), layout="padded") for part in parts]
    held = matrices * MOMENT_BYTES * shape.located
    return Workload(passes, steps=len(parts), epochs=training.v_num_grad_steps, held_bytes=held)
