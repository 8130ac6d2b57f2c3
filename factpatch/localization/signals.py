"""Cheap rankings of places: one pass forward and backward over the sample and its questions, for all places together.

Raising a row's margin (by how much its answer is the likeliest) by changing one matrix works through the row's gradient
there. The products of the rows' gradients (the tangent kernel of the place) say to first order what training there
would do: how large a change the edits need, whether paraphrases follow, and what else moves. A matrix's gradient for
a row is a sum over positions of (gradient of its output) x (its input). Both are at hand in the backward pass, so a
random sketch of their product is kept (a few thousand numbers a row), and no gradient of a weight is ever formed.

Shape suffixes: R rows, T positions, I and O inputs and outputs of a matrix, K sides of a sketch.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import nn

from factpatch.localization.trial_set import TrialSet
from factpatch.models.batches import in_batches
from factpatch.models.encoding import Encoded, padding_id
from factpatch.models.forward import Predictions, collate, predict_whole
from factpatch.models.linear import is_projection_weight, owner_of
from factpatch.models.loading import LoadedModel
from factpatch.models.locations import Location

SKETCH_SIDE = 48  # of a sketch; products of gradients are then off by a few hundredths of their size
BATCH_ROWS = 32  # rows of a pass
QUESTION_LIMIT = 32  # questions at most
AIM = 2.0  # margin (in logits) that every edit should have
TINY = 1e-20  # least square of a gradient's size
RIDGE = 0.01  # of the mean squared gradient, added to the products so that nearly equal rows don't blow up the update


@dataclass(frozen=True)
class Gradients:
    """Sketched gradients of the rows' margins, and the margins.

    `sketch_RK` maps each matrix (by its parameter's name) to rows of numbers; `norm` to its own size (Frobenius).
    """

    sketch_RK: dict[str, torch.Tensor]
    norm: dict[str, float]
    margin_R: torch.Tensor

    def kernel(self, location: Location) -> torch.Tensor | None:
        """Products of the rows' gradients at a place (R, R); None if it holds a matrix that no sketch knows."""
        if not all(name in self.sketch_RK for name in location.parameters):
            return None
        return torch.stack([self.sketch_RK[name] @ self.sketch_RK[name].T for name in location.parameters]).sum(0)

    def size(self, location: Location) -> float:
        """Frobenius norm of the place's matrices together."""
        return math.hypot(*(self.norm[name] for name in location.parameters))


def margins(predictions: Predictions) -> torch.Tensor:
    """Of each row, over its target tokens, the least difference between the token's logit and the best other's."""
    logits_PV = predictions.logits_PV.float()
    target_P1 = predictions.target_P[:, None]
    right_P = logits_PV.gather(1, target_P1)[:, 0]
    other_P = logits_PV.scatter(1, target_P1, -math.inf).amax(1)
    margin_P = torch.where(predictions.real_P, right_P - other_P, math.inf)
    least_R = torch.full((predictions.rows,), math.inf, device=margin_P.device)
    return least_R.scatter_reduce(0, predictions.row_P, margin_P, "amin")


def sketch_gradients(
    loaded: LoadedModel,
    names: Sequence[str],
    rows: Sequence[Encoded],
) -> Gradients:
    """The gradients of the rows' margins by the named matrices, of those that plain projections hold."""
    model = loaded.model
    order = sorted(range(len(rows)), key=lambda index: len(rows[index].ids))

    def sketch(chosen: Sequence[int]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        batch = collate([rows[index] for index in chosen], padding_id(loaded.tokenizer), model.device)
        with _sketching(loaded, names, batch.attention_BT[:, :-1].bool()) as sketches, torch.enable_grad():
            margin_R = margins(predict_whole(model, batch))
            margin_R.sum().backward()
        return margin_R.detach().cpu(), sketches

    found = [pair for _, pair in in_batches(sketch, order, BATCH_ROWS)]
    back = torch.tensor(order).argsort()
    sketch_RK = {name: torch.cat([sketches[name] for _, sketches in found])[back] for name in found[0][1]}
    norm = {name: float(model.get_parameter(name).float().norm()) for name in sketch_RK}
    return Gradients(sketch_RK, norm, torch.cat([margin_R for margin_R, _ in found])[back])


@contextmanager
def _sketching(loaded: LoadedModel, names: Sequence[str], real_RT: torch.Tensor) -> Iterator[dict[str, torch.Tensor]]:
    """Collects each matrix's sketches in the block's backward pass. Only activations get gradients."""
    model = loaded.model
    sketches: dict[str, torch.Tensor] = {}

    def take(name: str, input_RTI: torch.Tensor, gradient_RTO: torch.Tensor) -> None:
        real_RT1 = real_RT[:, :, None]
        left_RTK = _project(torch.where(real_RT1, gradient_RTO, 0).float(), f"{name} out")
        right_RTK = _project(torch.where(real_RT1, input_RTI, 0).float(), f"{name} in")
        sketches[name] = torch.einsum("rtk,rtl->rkl", left_RTK, right_RTK).flatten(1).cpu()

    def watch(name: str, module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        if output.shape[:2] == real_RT.shape:  # experts see some positions only
            output.register_hook(partial(take, name, inputs[0].detach()))

    with ExitStack() as hooks:
        start = model.get_input_embeddings().register_forward_hook(
            lambda module, inputs, output: output.requires_grad_()
        )
        hooks.callback(start.remove)
        for name in names:
            if is_projection_weight(model, name):
                module = owner_of(model, name)
                hooks.callback(module.register_forward_hook(partial(watch, name)).remove)
        yield sketches


def _project(value_RTD: torch.Tensor, seed: str) -> torch.Tensor:
    """Random projection to SKETCH_SIDE dimensions that keeps products on average; narrow values stay as they are."""
    width = value_RTD.shape[-1]
    if width <= SKETCH_SIDE:
        return value_RTD
    generator = torch.Generator().manual_seed(sum(map(ord, seed)) * 1_000_003 + width)
    matrix_DK = torch.randn((width, SKETCH_SIDE), generator=generator) / math.sqrt(SKETCH_SIDE)
    return value_RTD @ matrix_DK.to(value_RTD.device)


@dataclass(frozen=True)
class Ranked:
    """A place with its signals; None where the place holds a matrix that no sketch knows."""

    location: Location
    signals: dict[str, float | None]


def rank_places(loaded: LoadedModel, trial_set: TrialSet, locations: Sequence[Location]) -> list[Ranked]:
    """Places from the most promising, by the update that the edits need; what has no signal stands in the middle."""
    asked = [
        question for question in trial_set.questions if question.metric != "reliability"
    ]  # that the edits' rows show
    trial_set = replace(trial_set, questions=tuple(asked[:: -(-len(asked) // QUESTION_LIMIT) or 1]))
    names = list(dict.fromkeys(name for location in locations for name in location.parameters))
    rows = [*trial_set.training[: trial_set.edits], *(question.row for question in trial_set.questions)]
    gradients = sketch_gradients(loaded, names, rows)
    ranked = [Ranked(location, signals(gradients, trial_set, location)) for location in locations]
    known = sorted(value for place in ranked if (value := place.signals["update"]) is not None)
    middle = known[len(known) // 2] if known else 0.0

    def effort(place: Ranked) -> tuple[float, int]:
        value = place.signals["update"]
        return (middle if value is None else value), -place.location.layer

    return sorted(ranked, key=effort)


def signals(gradients: Gradients, trial_set: TrialSet, location: Location) -> dict[str, float | None]:
    """What the tangent kernel of a place says.

    update: size of the least change that gives every edit the margin AIM to first order, relative to the place's own
        size; the smaller, the better.
    gradient: how much a change of the place's own size moves an edit's margin (relative gradient); root mean square.
    reach: mean cosine between the gradients of a paraphrase and of its edit.
    overlap: root mean square cosine between the gradients of what must not move and of the edits.
    """
    kernel_RR = gradients.kernel(location)
    if kernel_RR is None:
        return dict.fromkeys(("update", "gradient", "reach", "overlap"))
    asked = {
        name: [trial_set.edits + index for index, question in enumerate(trial_set.questions) if question.metric == name]
        for name in ("generalization", "locality", "capability")
    }
    edits, still = list(range(trial_set.edits)), [*asked["locality"], *asked["capability"]]
    parents = [trial_set.questions[index - trial_set.edits].edit for index in asked["generalization"]]
    length_R = kernel_RR.diag().clamp(min=TINY).sqrt()
    cosine_RR = kernel_RR / length_R[:, None] / length_R
    size, strength = gradients.size(location), float(length_R[edits].square().mean())
    kernel_EE = kernel_RR[: trial_set.edits, : trial_set.edits].double()
    wanted_E = (AIM - gradients.margin_R[edits]).clamp(min=0).double()
    step_E = torch.linalg.solve(kernel_EE + RIDGE * strength * torch.eye(trial_set.edits), wanted_E)
    return {
        "update": math.sqrt(max(float(step_E @ kernel_EE @ step_E), 0.0)) / size,
        "gradient": math.sqrt(strength) * size,
        "reach": float(cosine_RR[asked["generalization"], parents].mean()) if parents else None,
        "overlap": float(cosine_RR[still][:, edits].square().mean().sqrt()) if still else None,
    }
