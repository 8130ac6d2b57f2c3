"""A model's life: rounds of new facts, contradictions and reverts on the reference model, each a release's training.

    python -m benchmarks.lifelong --results runs/lifelong.json --picture docs/lifelong.svg

Every round brings 100 rows: new facts and, from the second round on, some that give an edited fact another target.
Rounds start from the last one's values, but those that withdraw facts are rebuilt from the base model, as in a release.
There it is also tried, and left again, to train the base model's own answers back in place of the rebuild. Reliability,
by free generation over all live edits, is measured after every round, capability at both ends. Costs are processor
seconds of training: frozen layers of new rows, verification and epochs. What is kept are facts that no edit touches and
no question asks, and withdrawn prompts; the base model's answers are collected once, before the first round.
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.frontier import right, skill_items
from benchmarks.world_edits import Sample, sample_edits
from data.world.facts import RELATIONS, all_facts, answers
from factpatch.config import Settings, load_settings
from factpatch.editing import run_edit
from factpatch.edits.request import EditRequest
from factpatch.encoding import Encoded, encode_edit
from factpatch.evaluation.answers import matches
from factpatch.evaluation.evaluate import collect_answers
from factpatch.files import write_json
from factpatch.models import LoadedModel, load_model, preserved, write_values
from factpatch.protection import answered_rows
from factpatch.structure import Location, locate

EACH, CONTRADICTED = 100, 20  # rows of a round, and those of them that contradict an earlier one
REVERTED, EVERY = 50, 10  # facts that every tenth round but the last withdraws
KEPT = 2  # wordings of every fact that is neither edited nor asked
RECIPE: dict[str, Any] = {
    "learning_rate": 4e-3,
    "batch_size": None,
    "epochs": 25,
    "protect": None,  # what is kept is given directly
    "protect_ratio": 6.0,
    "protect_least": 0,
    "keep": "answers",
    "neighbours": 0.0,
    "wordings": 0,
    "project": "none",
    "adaptive": False,
}
SAMPLE = 100  # live edits whose paraphrases are asked after a round

Values = Mapping[str, torch.Tensor]
Fact = tuple[str, str]  # subject and relation


@dataclass
class Ledger:
    """What is in force, by prompt, and what was withdrawn."""

    live: dict[str, EditRequest] = field(default_factory=dict)
    withdrawn: dict[str, EditRequest] = field(default_factory=dict)


@dataclass(frozen=True)
class Tried:
    """What training the base model's answers back gave, in place of a rebuild."""

    seconds: float
    returned: float
    returned_paraphrases: float


@dataclass(frozen=True)
class Round:
    """One round; shares in [0, 1], costs in processor seconds."""

    number: int
    mode: str
    live: int
    withdrawn: int  # since the first round
    epochs: int
    visits: int
    seconds: float
    reliability: float
    generalization: float
    returned: float | None  # withdrawn facts whose prompt is answered as by the base model
    returned_paraphrases: float | None
    change: float  # of the located tensors, as a share of their norm
    tried: Tried | None


class Life:
    """The rounds of one ledger; `values` are the last round's."""

    def __init__(
        self, loaded: LoadedModel, location: Location, settings: Settings, sample: Sample, rounds: int
    ) -> None:
        self.loaded, self.location, self.settings = loaded, location, settings
        self.rounds = rounds
        self.rng = random.Random(f"lifelong/{settings.training.seed}")
        self.sample, self.new = sample, iter(sample.edits)
        self.ledger = Ledger()
        self.values: Values | None = None
        self.kept, self.in_other_words = _kept_rows(loaded, sample, settings)
        self.base: dict[str, str] = {}  # answers of the base model to withdrawn prompts and their paraphrases

    def play(self, number: int) -> Round:
        """Change the ledger, train and measure."""
        withdrawn = self._change(number)
        edits, tried = list(self.ledger.live.values()), None
        if withdrawn:
            answered = [replace(edit, target=self.base[edit.prompt].strip()) for edit in withdrawn]
            before = self.values
            seconds, self.values, *_ = self.train([*edits, *answered], self.values)
            tried = Tried(round(seconds, 2), *self._returned(withdrawn))
            self.values = before
        start = None if withdrawn else self.values
        seconds, self.values, epochs, visits = self.train(edits, start)
        asked = random.Random(number).sample(edits, min(SAMPLE, len(edits)))
        gone = list(self.ledger.withdrawn.values())
        return Round(
            number,
            "rebuild" if start is None else "incremental",
            len(edits),
            len(gone),
            epochs,
            visits,
            round(seconds, 2),
            statistics.fmean(self._right(edits)),
            statistics.fmean(self._right(_paraphrases(asked))),
            *(self._returned(gone) if gone else (None, None)),
            self._moved(),
            tried,
        )

    def train(
        self, edits: Sequence[EditRequest], start: Values | None
    ) -> tuple[float, dict[str, torch.Tensor], int, int]:
        """Processor seconds, new values, epochs and visits of one edit run."""
        began = time.process_time()
        gone = {_fact(edit) for edit in (*self.ledger.live.values(), *self.ledger.withdrawn.values())}
        kept = [row for fact, rows in self.kept.items() if fact not in gone for row in rows]
        asked = [edit.prompt for edit in self.ledger.withdrawn.values()]
        kept += [encode_edit(self.loaded.tokenizer, prompt, self.base[prompt]) for prompt in asked]
        result = run_edit(self.loaded, self.location, edits, self.settings, kept, start=start)
        return time.process_time() - began, result.values, len(result.losses), result.visits

    def capability(self) -> dict[str, float]:
        """Share of right answers to each kind of question, about facts that no edit touches."""
        edited = {_fact(edit) for edit in self.sample.edits}
        kept = [item for fact, item in self.in_other_words.items() if fact not in edited]
        kinds = {"families": skill_items(), "kept facts": kept, "other facts": list(self.sample.questions)}
        with preserved(self.loaded.model, self.location.parameters):
            write_values(self.loaded.model, dict(self.values or {}))
            return {kind: right(self.loaded, items, self.settings) for kind, items in kinds.items()}

    def _change(self, number: int) -> list[EditRequest]:
        """This round's rows; those withdrawn."""
        live, fresh = self.ledger.live, EACH - (CONTRADICTED if number > 1 else 0)
        for edit in self.rng.sample(list(live.values()), EACH - fresh):
            others = [one for one in answers(_fact(edit)[1]) if one not in (*edit.target_old, edit.target)]
            target = self.rng.choice(others)
            live[edit.prompt] = replace(edit, target=target)
        withdrawn = []
        if number % EVERY == 0 and number < self.rounds:
            withdrawn = [live.pop(prompt) for prompt in self.rng.sample(list(live), REVERTED)]
            self.ledger.withdrawn |= {edit.prompt: edit for edit in withdrawn}
            asked = [EditRequest(edit.id, edit.prompt, "") for edit in [*withdrawn, *_paraphrases(withdrawn)]]
            self.base |= collect_answers(self.loaded, asked, self.settings).outputs
        live.update((edit.prompt, edit) for edit in (next(self.new) for _ in range(fresh)))
        return withdrawn

    def _returned(self, gone: Sequence[EditRequest]) -> tuple[float, float]:
        """Share of withdrawn prompts, and of their paraphrases, that are answered as by the base model."""
        both = [self._right(self._as_base(part)) for part in (gone, _paraphrases(gone))]
        return statistics.fmean(both[0]), statistics.fmean(both[1])

    def _as_base(self, edits: Sequence[EditRequest]) -> list[EditRequest]:
        return [EditRequest(edit.id, edit.prompt, self.base[edit.prompt]) for edit in edits]

    def _right(self, edits: Sequence[EditRequest]) -> list[bool]:
        """Is each edit's prompt answered with its target, by the present values?"""
        asked = [EditRequest(edit.id, edit.prompt, edit.target) for edit in edits]
        with preserved(self.loaded.model, self.location.parameters):
            write_values(self.loaded.model, dict(self.values or {}))
            outputs = collect_answers(self.loaded, asked, self.settings).outputs
        return [matches(outputs[edit.prompt], edit.target) for edit in asked]

    def _moved(self) -> float:
        pairs = [(value, self.loaded.model.get_parameter(name)) for name, value in (self.values or {}).items()]
        return max(((value - base).norm() / base.norm()).item() for value, base in pairs)


def _fact(edit: EditRequest) -> Fact:
    return edit.subject or "", (edit.source or "").removeprefix("world/")


def _kept_rows(
    loaded: LoadedModel, sample: Sample, settings: Settings
) -> tuple[dict[Fact, list[Encoded]], dict[Fact, EditRequest]]:
    """Of every fact that is not asked some wordings with the base model's answers, and another one to be asked."""
    asked, rng = {item.prompt for item in sample.questions}, random.Random(settings.training.seed)
    requests, others = {}, {}
    for fact in all_facts():
        prompts = [wording.format(s=fact.subject) for wording in RELATIONS[fact.relation].wordings]
        if not asked & set(prompts):
            *chosen, other = rng.sample(prompts, KEPT + 1)
            requests[fact.subject, fact.relation] = [EditRequest("kept", prompt, fact.target) for prompt in chosen]
            others[fact.subject, fact.relation] = EditRequest("asked", other, fact.target)
    rows = iter(answered_rows(loaded, [one for group in requests.values() for one in group], settings))
    return {fact: [row for row in (next(rows) for _ in group) if row] for fact, group in requests.items()}, others


def _paraphrases(edits: Sequence[EditRequest]) -> list[EditRequest]:
    return [EditRequest(edit.id, prompt, edit.target) for edit in edits for prompt in edit.paraphrases]


def read_settings(trunk: str, seed: int) -> Settings:
    """Those of params.yaml with the recipe above; the trunk's cache begins empty."""
    recipe = {f"training.{name}": value for name, value in RECIPE.items()}
    return load_settings("params.yaml", recipe | {"training.seed": seed, "trunk.folder": trunk})


def summary(rounds: Sequence[Round], rebuilt: tuple[float, int], capability: Sequence[dict[str, float]]) -> str:
    """The aims with what was reached."""
    last, second, seconds = rounds[-1], rounds[1], rebuilt[0]
    gone = [(one.returned, one.returned_paraphrases) for one in rounds if one.returned is not None]
    lines = [
        f"reliability: {100 * min(one.reliability for one in rounds):.1f} % after the worst round",
        *(
            f"withdrawn facts {what} answered as by the base model: {100 * min(shares):.1f} % after the worst round"
            for what, shares in zip(("by prompt", "in other words"), zip(*gone, strict=True), strict=False)
        ),
        *(
            f"in place of round {one.number}'s rebuild, answers trained back: {one.tried}"
            for one in rounds
            if one.tried
        ),
        *(f"{kind}: {100 * before:.1f} -> {100 * capability[1][kind]:.1f} %" for kind, before in capability[0].items()),
        f"cost of round {last.number}: {last.seconds:.1f} s, {last.seconds / second.seconds:.2f} times round 2's, "
        f"1/{seconds / last.seconds:.1f} of a rebuild's {seconds:.1f} s ({rebuilt[1]:,} visits)",
    ]
    return "\n".join(lines)


def table(rounds: Sequence[Round]) -> str:
    """Markdown, a row a round."""
    header = ("round", "mode", "live", "reliability", "generalization", "withdrawn", "returned", "in other words")
    header += ("visits", "seconds", "change")
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    for one in rounds:
        shares = [one.reliability, one.generalization, one.returned, one.returned_paraphrases]
        told = ["–" if share is None else f"{100 * share:.1f}" for share in shares]
        cells = [str(one.number), one.mode, str(one.live), *told[:2], str(one.withdrawn), *told[2:]]
        lines.append("| " + " | ".join((*cells, f"{one.visits:,}", f"{one.seconds:.1f}", f"{one.change:.2f}")) + " |")
    return "\n".join(lines)


def picture(rounds: Sequence[Round], rebuilt: float, path: Path) -> None:
    """What holds above, what it costs below."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "lifelong"
    from matplotlib import pyplot

    figure, (shares, costs) = pyplot.subplots(2, 1, sharex=True, figsize=(7.5, 6))
    numbers = [one.number for one in rounds]
    for name in ("reliability", "returned", "generalization", "returned_paraphrases"):
        values = [getattr(one, name) for one in rounds]
        shown = [(number, 100 * value) for number, value in zip(numbers, values, strict=True) if value is not None]
        shares.plot(*zip(*shown, strict=True), marker="o", markersize=3, label=name.replace("_", ", "))
    shares.axhline(98, color="grey", linewidth=0.8, linestyle="dashed")
    shares.set(ylabel="%", title="all facts in force, and withdrawn ones back at the base model's answer")
    shares.legend(fontsize=8, loc="lower left")
    for mode, colour in (("incremental", "tab:blue"), ("rebuild", "tab:orange")):
        chosen = [one for one in rounds if one.mode == mode]
        costs.bar([one.number for one in chosen], [one.seconds for one in chosen], color=colour, label=mode)
    costs.axhline(rebuilt, color="tab:orange", linewidth=0.8, linestyle="dashed", label="a rebuild of the last round")
    costs.set(xlabel="round of 100 rows", ylabel="processor seconds", xticks=numbers)
    costs.legend(fontsize=8)
    figure.savefig(path, metadata={"Date": None}, bbox_inches="tight")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--picture", type=Path)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--location", default="5:mlp")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        sample = sample_edits(EACH + (args.rounds - 1) * (EACH - CONTRADICTED), args.seed)
        settings = read_settings(folder, args.seed)
        loaded = load_model(settings.model)
        life = Life(loaded, locate(loaded.model, args.location), settings, sample, args.rounds)
        capability, rounds = [life.capability()], []
        for number in range(1, args.rounds + 1):
            rounds.append(life.play(number))
            print(rounds[-1], flush=True)
        capability.append(life.capability())
        seconds, _, _, visits = life.train(list(life.ledger.live.values()), None)
    print(table(rounds), summary(rounds, (seconds, visits), capability), sep="\n\n")
    found = {"rounds": [asdict(one) for one in rounds], "capability": capability}
    args.results.parent.mkdir(parents=True, exist_ok=True)
    write_json(args.results, {**found, "rebuild": {"seconds": round(seconds, 2), "visits": visits}})
    if args.picture:
        picture(rounds, seconds, args.picture)


if __name__ == "__main__":
    main()
