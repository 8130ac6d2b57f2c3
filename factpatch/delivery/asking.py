"""Which of the facts that a patch was measured to hold does a model answer? Asked of every form that is delivered."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from factpatch.edits.request import EditRequest
from factpatch.errors import InputError, RefusedError
from factpatch.evaluation.answers import matches
from factpatch.evaluation.evaluate import collect_answers
from factpatch.evaluation.gates import ROUNDING
from factpatch.files import read_json
from factpatch.models.loading import LoadedModel
from factpatch.patches.patch import Patch
from factpatch.settings.config import Settings

LOST_NAMED = 2  # prompts named in a message


@dataclass(frozen=True)
class FactsHeld:
    """How many facts were asked, and the prompts of those that were answered otherwise."""

    asked: int
    lost: tuple[str, ...] = ()

    def __str__(self) -> str:
        if not self.asked:
            return "no fact was asked, as no measured ones are known (evaluate.json beside the patch)"
        return f"{self.asked - len(self.lost)} of {self.asked} facts hold"


def facts_of(rows: Sequence[Mapping[str, Any]]) -> tuple[EditRequest, ...]:
    """The facts that a patch holds, from the `edits` of `evaluate.json`: those answered right when it was measured."""
    return tuple(EditRequest(row["id"], row["prompt"], row["target"]) for row in rows if row["reliable"])


def facts_beside(patch: str | Path) -> tuple[EditRequest, ...]:
    """The facts measured in the output folder that a patch lies in; none where nothing was measured there."""
    path = Path(patch).resolve().parent / "evaluate.json"
    return facts_of(read_json(path)["edits"]) if path.exists() else ()


def as_measured(settings: Settings, patch: Patch) -> Settings:
    """The settings with all that decides an answer as it was when the patch was trained and measured."""
    then = patch.manifest["config"]
    evaluation = {name: then["evaluation"][name] for name in ("protocol", "max_new_tokens")}
    return replace(
        settings,
        model=replace(settings.model, dtype=then["model"]["dtype"]),
        edits=replace(settings.edits, chat_template=then["edits"]["chat_template"]),
        evaluation=replace(settings.evaluation, **evaluation),
    )


def ask_facts(loaded: LoadedModel, facts: Sequence[EditRequest], settings: Settings) -> FactsHeld:
    """Put every fact to a model as it is in memory."""
    if not facts:
        return FactsHeld(0)
    outputs = collect_answers(loaded, facts, settings).outputs
    protocol = settings.evaluation.protocol
    lost = (fact.prompt for fact in facts if not matches(outputs[fact.prompt], fact.target, protocol))
    return FactsHeld(len(facts), tuple(lost))


def least_rank(ranks: Iterable[int], ask: Callable[[int], FactsHeld]) -> int:
    """The smallest of the ranks at which no fact is lost, as `ask` finds.

    Raises:
        InputError: no facts are known.
        RefusedError: some are lost at every rank.
    """
    rank, held = 0, FactsHeld(0)
    for rank in sorted(ranks):
        held = ask(rank)
        if not held.asked:
            raise InputError("no measured facts are known by which to choose a rank; name one with --rank")
        if not held.lost:
            return rank
    raise RefusedError(
        f"nothing was written: at rank {rank} {held}, and none may be lost; name a --rank to allow for some, or export "
        "whole matrices"
    )


def refuse_loss(what: str, held: FactsHeld, settings: Settings, advice: str) -> None:
    """RefusedError if fewer of the facts hold than the gate on reliability asks."""
    floor = settings.gates.reliability
    if held.asked and 1 - len(held.lost) / held.asked < floor - ROUNDING:
        named = ", ".join(f"'{prompt}'" for prompt in held.lost[:LOST_NAMED])
        raise RefusedError(
            f"{what}: {held}, fewer than the {floor:.1%} of gates.reliability; lost are such as {named}; {advice}"
        )
