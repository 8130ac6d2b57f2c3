"""Rows opened for training or measuring at a location: the cheapest way to run them that is proven to be the same."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from weakref import WeakKeyDictionary

import torch
from transformers import PreTrainedModel

from factpatch.errors import InputError
from factpatch.frozen_trunk.activations import Activations
from factpatch.frozen_trunk.capture import capture
from factpatch.frozen_trunk.plan import Layout, Plan, positions, possible_plans
from factpatch.frozen_trunk.replay import HeadRun, head_side
from factpatch.frozen_trunk.store import kept_activations
from factpatch.models.batches import out_of_memory, within_memory
from factpatch.models.encoding import Encoded, padding_id
from factpatch.models.forward import Predictions, collate, only_tokens, predict_whole, token_losses
from factpatch.models.loading import LoadedModel, preserved
from factpatch.models.locations import Location
from factpatch.models.placement import held_from, stream_of
from factpatch.progress import Progress
from factpatch.settings.config import TrunkSettings

PROOF_ROWS = 4  # rows that a plan is proven on
NUDGE = 0.1  # how far the proof moves the located tensors: what is kept must not depend on them
AGREEMENT = {torch.float32: 1e-3, torch.float16: 2e-2, torch.bfloat16: 6e-2}  # of logits, relative to the largest
SLOPES = {torch.float32: 1e-2, torch.float16: 0.1, torch.bfloat16: 0.3}  # of gradients, relative to the largest

_proven: WeakKeyDictionary[PreTrainedModel, dict[Location, Plan]] = WeakKeyDictionary()


class Rows:
    """Encoded rows that can be run again and again while the located tensors change.

    `plan` says what is kept; None means that the whole model runs each time. `lengths` are the positions that each row
    takes in a pass.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        rows: Sequence[Encoded],
        plan: Plan | None = None,
        kept: Activations | None = None,
        run: HeadRun | None = None,
    ) -> None:
        self.rows = tuple(rows)
        self.plan = plan
        self.lengths = [positions(row, self.layout) for row in self.rows]
        self._loaded, self._kept, self._run = loaded, kept, run

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def layout(self) -> Layout:
        """How the rows of a pass lie."""
        return self.plan.layout if self.plan else "padded"

    @property
    def vocabulary(self) -> int:
        """Logits of a position."""
        return self._loaded.model.config.get_text_config().vocab_size

    @property
    def engine(self) -> str:
        """How rows are run: from the location up in one of the layouts, or through the `whole` model."""
        return self.plan.layout if self.plan else "whole"

    def predict(self, indices: Sequence[int], tokens_S: torch.Tensor | None = None) -> Predictions:
        """Predictions for some of the rows with the model's present values, of the whole vocabulary or of the tokens
        named alone."""
        chosen = [self.rows[index] for index in indices]
        model = self._loaded.model
        with only_tokens(model, tokens_S):
            if self._run is not None and self._kept is not None:
                return self._run(chosen, self._kept.select(indices))
            return predict_whole(model, collate(chosen, padding_id(self._loaded.tokenizer), model.device))


@contextmanager
def open_rows(
    loaded: LoadedModel,
    location: Location | None,
    rows: Sequence[Encoded],
    settings: TrunkSettings,
    progress: Progress | None = None,
) -> Iterator[Rows]:
    """The rows with their trunk done, or fetched from the cache; the model runs from the location up until the end.

    Nothing but the located tensors may change meanwhile. Where there is no location, no plan gives the whole model's
    logits, or the settings turn the trunk off, rows run through the whole model.
    """
    plan = proven_plan(loaded, location, rows) if location and settings.keep and rows else None
    if plan is None:
        if location and rows:
            _refuse_streamed(loaded, location, settings)
        yield Rows(loaded, rows)
        return
    kept = kept_activations(loaded, plan, rows, settings, progress)
    with held_from(loaded.model, plan.layer), head_side(loaded.model, plan) as run:
        yield Rows(loaded, rows, plan, kept, run)


def _refuse_streamed(loaded: LoadedModel, location: Location, settings: TrunkSettings) -> None:
    """InputError for a streamed model: it cannot be read anew in every step."""
    if stream_of(loaded.model) is None:
        return
    if not settings.keep:
        raise InputError(
            "trunk.keep is false, so the whole model runs in every step, and model.placement 'stream' reads it anew "
            "for each; set trunk.keep to true, or load the model with 'memory'"
        )
    raise InputError(
        f"{type(loaded.model).__name__} cannot be cut into blocks below {location.name}, as model.placement 'stream' "
        "needs it; choose another location, or load the model with 'memory'"
    )


def proven_plan(loaded: LoadedModel, location: Location, rows: Sequence[Encoded]) -> Plan | None:
    """As `make_plan`, but proven once for each model in memory and location: how a model can be cut does not hang on
    the located values, and the proof takes as long as verifying a thousand answers of a small model."""
    plans = _proven.setdefault(loaded.model, {})
    plan = plans.get(location) or make_plan(loaded, location, rows)
    if plan is not None:
        plans[location] = plan
    return plan


def make_plan(loaded: LoadedModel, location: Location, rows: Sequence[Encoded]) -> Plan | None:
    """The cheapest plan that gives the whole model's logits on a few rows; None if no plan does.

    The proof moves the located tensors first, so that a plan that keeps what depends on them is not taken. It takes
    two rows at least, so that one in which rows see each other is not taken either.
    """
    probes = (list(dict.fromkeys(rows)) * 2)[:PROOF_ROWS]

    def first(few: Sequence[Encoded]) -> Plan | None:
        return next((plan for plan in possible_plans(loaded, location, few) if _agrees(loaded, plan, few)), None)

    return within_memory(first, probes)[0]


def _agrees(loaded: LoadedModel, plan: Plan, probes: Sequence[Encoded]) -> bool:
    """After the located tensors moved, does the head side give the whole model's logits, and the same gradients?

    Gradients matter most: a plan that cuts a path to the located tensors may still give logits that are nearly right.
    """
    model, names = loaded.model, plan.location.parameters
    try:
        kept = capture(loaded, [plan], probes)[0]
        with preserved(model, names), torch.enable_grad():
            generator = torch.Generator().manual_seed(0)
            for name in names:
                parameter = model.get_parameter(name)
                noise = torch.randn(parameter.shape, generator=generator).to(parameter)
                parameter.mul_(1 + NUDGE * noise).requires_grad_(True)
            batch = collate(probes, padding_id(loaded.tokenizer), model.device)
            whole = _outcome(loaded, plan, predict_whole(model, batch))
            with head_side(model, plan) as run:
                head = _outcome(loaded, plan, run(probes, kept))
    except (RuntimeError, TypeError, ValueError, IndexError, KeyError, AttributeError) as error:
        if out_of_memory(error):
            raise
        return False  # a model that cannot be cut here runs whole
    return all(map(_close, whole, head, (AGREEMENT[model.dtype], SLOPES[model.dtype])))


def _outcome(loaded: LoadedModel, plan: Plan, predictions: Predictions) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits where a target token is due, and the gradients of all located tensors as one row of numbers."""
    located = [loaded.model.get_parameter(name) for name in plan.location.parameters]
    gradients = torch.autograd.grad(token_losses(predictions).sum(), located)
    flat = torch.cat([gradient.flatten().float() for gradient in gradients])
    return predictions.logits_PV[predictions.real_P].detach(), flat


def _close(wanted: torch.Tensor, found: torch.Tensor, tolerance: float) -> bool:
    """Is the largest difference within the tolerance, relative to the largest number?"""
    if wanted.shape != found.shape or not torch.isfinite(found).all():
        return False
    return bool((wanted - found).abs().max() <= tolerance * wanted.abs().max())
