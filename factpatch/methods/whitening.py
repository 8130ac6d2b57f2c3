"""Training where general text is white: every direction that a matrix reads moves the less, the more text uses it.

A matrix W is trained as W0 + T R, where R is the inverse root of the second moment of what W reads of the model's own
texts. In these coordinates all that text reads has unit variance, so a step of Adam in T moves what W makes of general
text about equally whichever way it goes, and as little as a step of that size can. What sets an edit's prompt apart
from general text is then what carries the edit. MEMIT solves for its changes by the same inverse (arXiv 2210.07229);
K-FAC preconditions gradients by it (arXiv 1503.05671).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from transformers import PreTrainedModel

from factpatch.methods.master_weights import DifferenceMasters, Masters, located_for_training
from factpatch.methods.reading_moments import reading_moments
from factpatch.models.linear import is_projection_weight, is_transposed, owner_of
from factpatch.models.loading import LoadedModel
from factpatch.models.locations import Location
from factpatch.models.placement import stream_of
from factpatch.settings.config import TrunkSettings

log = logging.getLogger(__name__)

MOMENT_TOKENS = 4096  # of the model's own texts

Whitening = Mapping[str, torch.Tensor]  # R (width read, width read) by the name of the projection's weight


def whitening_at(loaded: LoadedModel, location: Location, damping: float | None, trunk: TrunkSettings) -> Whitening:
    """R for every linear projection at the location; norms, biases and stacked experts have none, and nothing has
    without a `damping`. Nor has a streamed model, which is told: drawing its texts would read its files time and again.
    """
    if not damping:
        return {}
    if stream_of(loaded.model) is not None:
        log.warning("a streamed model is trained without training.whitening: its own texts would take a pass a token")
        return {}
    names = whitened(loaded.model, [location])
    moments = reading_moments(loaded, names, trunk, MOMENT_TOKENS) if names else {}
    return {name: inverse_root(moment, damping) for name, moment in moments.items()}


def whitened(model: PreTrainedModel, locations: Sequence[Location]) -> list[str]:
    """The located tensors that can be trained so, each once."""
    names = dict.fromkeys(name for location in locations for name in location.parameters)
    return [name for name in names if is_projection_weight(model, name)]


def inverse_root(moment_CC: torch.Tensor, damping: float) -> torch.Tensor:
    """(M + damping x mean eigenvalue)^(-1/2) of a second moment M, scaled so that its squared singular values are 1 on
    average: a random step is as large as it would be without. The identity where nothing is read."""
    values_C, vectors_CC = torch.linalg.eigh(moment_CC.double())
    mean = values_C.clamp(min=0).mean()
    if not mean > 0:
        return torch.eye(len(moment_CC), device=moment_CC.device)
    scale_C = (values_C.clamp(min=0) / mean + damping).rsqrt()
    scale_C /= scale_C.square().mean().sqrt()
    return ((vectors_CC * scale_C) @ vectors_CC.T).float()


class WhitenedMasters(DifferenceMasters):
    """The optimizer moves T, zero at first, and W is W0 + T R; W0 + R T for weights of GPT-2, which are transposed;
    W0 + T where there is no R."""

    def __init__(self, model: PreTrainedModel, location: Location, whitening: Whitening) -> None:
        super().__init__(model, location)
        self.tensors = [torch.zeros_like(start) for start in self._starts]
        roots = [whitening.get(name) for name in self.names]
        # what a bfloat16 model is given is rounded to that anyway, and such products take less than half the time;
        # float16 would lose gradients that are too small for it
        kept = torch.bfloat16 if model.dtype == torch.bfloat16 else torch.float32
        self._roots = [None if root is None else root.to(kept) for root in roots]
        owners = [owner_of(model, name) for name in self.names]
        self._transposed = [is_transposed(owner) for owner in owners]

    def finish_gradients(self) -> None:
        """From the gradient G of W: G R for T, as R is its own transpose; once a mini-batch, as it takes long."""
        for number, master in enumerate(self.tensors):
            if master.grad is not None:
                master.grad = self._through(number, master.grad)

    def merged(self) -> Sequence[torch.Tensor]:
        """The located tensors' present values in float32."""
        return [
            start + self._through(number, master)
            for number, (start, master) in enumerate(zip(self._starts, self.tensors, strict=True))
        ]

    def _through(self, number: int, value: torch.Tensor) -> torch.Tensor:
        root = self._roots[number]
        if root is None:
            return value.clone()
        given = value.to(root.dtype)
        return (root @ given if self._transposed[number] else given @ root).float()


@contextmanager
def whitened_masters(model: PreTrainedModel, location: Location, whitening: Whitening) -> Iterator[Masters]:
    """Masters that train where general text is white; when the block ends, in any way, the model is bit for bit as
    before."""
    with located_for_training(model, location):
        yield WhitenedMasters(model, location, whitening)
