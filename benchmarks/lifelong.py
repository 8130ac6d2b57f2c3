"""A model's life: rounds of new facts, contradictions and reverts on the reference model, each a release's training.

    python -m benchmarks.lifelong --rebuild 18 20 --results runs/lifelong.json --picture docs/lifelong.svg

Every round brings 100 rows: new facts and, from the second round on, some that give an edited fact another target.
Rounds start from the last one's values, but those that withdraw facts are rebuilt from the base model, as in a release,
and so are those that `--rebuild` names. The recipe is that of params.yaml. What is protected are facts that no
edit touches and no question asks, exercises of each other capability family, and withdrawn prompts; nothing that is
asked is trained. Reliability, by free generation over all live edits, is measured after every round, capability at both
ends, and once more after a rebuild of all that is live then. Costs are processor seconds of what a release trains with:
companions, frozen layers of new rows, verification and epochs; caches are kept from round to round.
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

import torch

from benchmarks.frontier import SKILLS, right, skill_items
from benchmarks.world_edits import Question, Sample, kept_facts, probed_facts, sample_edits
from data.world.facts import answers
from data.world.families import stream
from factpatch.editing import StartingPoint, edit_model
from factpatch.edits.request import EditRequest
from factpatch.evaluation.answers import matches
from factpatch.evaluation.evaluate import collect_answers
from factpatch.files import write_json, write_jsonl
from factpatch.models.loading import LoadedModel, load_model, preserved, write_values
from factpatch.models.locations import Location, locate
from factpatch.settings.config import Settings, load_settings
from factpatch.training_data.carry_over import NOTHING_CARRIED_OVER, CarriedOver

EACH, CONTRADICTED = 100, 20  # rows of a round, and those of them that contradict an earlier one
REVERTED, EVERY = 50, 10  # facts that every tenth round but the last withdraws
EXERCISES = 100  # of each capability family but the questions that are kept, and as many others that are asked
SAMPLE = 100  # live edits whose paraphrases are asked after a round

Values = Mapping[str, torch.Tensor]


@dataclass
class Ledger:
    """What is in force, by prompt, and what was withdrawn."""

    live: dict[str, EditRequest] = field(default_factory=dict)
    withdrawn: dict[str, EditRequest] = field(default_factory=dict)


@dataclass(frozen=True)
class Round:
    """One round; shares in [0, 1], costs in processor seconds."""

    number: int
    mode: str
    live: int
    withdrawn: int  # since the first round
    epochs: int
    visits: int
    seconds: float  # in all
    training_rows: float  # of these, to find wordings and what is kept
    reliability: float
    generalization: float
    returned: float | None  # withdrawn facts whose prompt is answered as by the base model
    returned_paraphrases: float | None
    change: float  # of the located tensors, as a share of their norm


@dataclass(frozen=True)
class Trained:
    """What one edit run gave and cost; `training_rows` are part of the seconds."""

    values: Values
    epochs: int
    visits: int
    seconds: float
    training_rows: float
    carried_over: CarriedOver


class Life:
    """The rounds of one ledger; `values` are the last round's."""

    def __init__(
        self,
        loaded: LoadedModel,
        location: Location,
        settings: Settings,
        sample: Sample,
        rounds: int,
        rebuilt: Sequence[int],
    ) -> None:
        self.loaded, self.location, self.settings = loaded, location, settings
        self.rounds, self.rebuilt = rounds, rebuilt
        self.rng = random.Random(f"lifelong/{settings.training.seed}")
        self.sample, self.new = sample, iter(sample.edits)
        self.ledger = Ledger()
        self.values: Values | None = None
        self.learnt: frozenset[tuple[str, str]] = frozenset()  # prompts and targets that `values` hold
        self.carried_over = NOTHING_CARRIED_OVER  # what they were trained with beside these
        self.kept, self.in_other_words = kept_facts(sample, settings.training.seed)
        self.base: dict[str, str] = {}  # answers of the base model to withdrawn prompts and their paraphrases
        asked = [*skill_items(EXERCISES), *sample.questions, *self._kept_questions().values()]
        write_jsonl(Path(settings.gates.canaries or ""), (_row(item) for item in asked))

    def play(self, number: int) -> Round:
        """Change the ledger, train and measure."""
        withdrawn = self._change(number)
        edits = list(self.ledger.live.values())
        start = None if withdrawn or number in self.rebuilt else self.values
        done = self.train(edits, start)
        self.values, self.learnt = done.values, frozenset((edit.prompt, edit.target) for edit in edits)
        self.carried_over = done.carried_over
        asked = random.Random(number).sample(edits, min(SAMPLE, len(edits)))
        gone = list(self.ledger.withdrawn.values())
        returned = self._returned(gone) if gone else (None, None)
        return Round(
            number=number,
            mode="rebuild" if start is None else "incremental",
            live=len(edits),
            withdrawn=len(gone),
            epochs=done.epochs,
            visits=done.visits,
            seconds=round(done.seconds, 2),
            training_rows=round(done.training_rows, 2),
            reliability=statistics.fmean(self._right(edits)),
            generalization=statistics.fmean(self._right(_paraphrases(asked))),
            returned=returned[0],
            returned_paraphrases=returned[1],
            change=self._moved(),
        )

    def train(self, edits: Sequence[EditRequest], start: Values | None) -> Trained:
        """One edit run as a release makes it."""
        gone = {_fact(edit) for edit in (*self.ledger.live.values(), *self.ledger.withdrawn.values())}
        kept = [row for fact, rows in self.kept.items() if fact not in gone for row in rows]
        write_jsonl(Path(self.settings.training.preservation.prompts or ""), map(_row, [*kept, *_exercises()]))
        known = self.learnt if start is not None else frozenset()
        learnt = tuple(edit for edit in edits if (edit.prompt, edit.target) in known)
        left, withdrawn = self.carried_over if learnt else NOTHING_CARRIED_OVER, tuple(self.ledger.withdrawn)
        begin = StartingPoint(start, learnt, left, withdrawn)
        moments = [time.process_time()]

        def on_rows(_: object) -> None:
            moments.append(time.process_time())

        done = edit_model(self.loaded, self.location, edits, self.settings, begin, on_rows=on_rows)
        seconds, found = time.process_time() - moments[0], moments[1] - moments[0]
        result, left = done.training, done.rows.carried_over
        return Trained(result.values, len(result.losses), result.visits, seconds, found, left)

    def capability(self) -> dict[str, float]:
        """Share of right answers to each kind of question, about facts that no edit touches. Kept facts are asked in
        words that are not kept; those that locality probes ask stand by themselves, as no neighbour may ask them."""
        probed, asked = probed_facts(self.sample), self._kept_questions()
        kinds = {
            "families": skill_items(EXERCISES),
            "kept facts": [item for fact, item in asked.items() if fact not in probed],
            "other facts": list(self.sample.questions),
            "probed facts": [item for fact, item in asked.items() if fact in probed],
        }
        with preserved(self.loaded.model, self.location.parameters):
            write_values(self.loaded.model, dict(self.values or {}))
            return {kind: right(self.loaded, items, self.settings) for kind, items in kinds.items()}

    def _kept_questions(self) -> dict[Question, EditRequest]:
        edited = {_fact(edit) for edit in self.sample.edits}
        return {fact: item for fact, item in self.in_other_words.items() if fact not in edited}

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
            self.base |= collect_answers(self.loaded, asked, self.settings, whole=True).outputs
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


def _fact(edit: EditRequest) -> Question:
    return edit.subject or "", (edit.source or "").removeprefix("world/")


def _row(item: EditRequest) -> dict[str, str]:
    return {"prompt": item.prompt, "target": item.target}


def _exercises() -> list[EditRequest]:
    """To be kept: none of those that are asked."""
    return [
        EditRequest(skill, item.prompt, item.target)
        for skill in SKILLS
        for item in stream(skill, random.Random(f"lifelong/{skill}"), EXERCISES)
    ]


def _paraphrases(edits: Sequence[EditRequest]) -> list[EditRequest]:
    return [EditRequest(edit.id, prompt, edit.target) for edit in edits for prompt in edit.paraphrases]


def read_settings(folder: Path, seed: int) -> Settings:
    """Those of params.yaml; its files and caches lie in `folder`, and the caches begin empty."""
    own = {"training.preservation.prompts": "kept.jsonl", "gates.canaries": "asked.jsonl"}
    own |= {"trunk.folder": "trunk", "evaluation.cache": "answers"}
    return load_settings(
        "params.yaml", {"training.seed": seed, **{name: str(folder / place) for name, place in own.items()}}
    )


def summary(rounds: Sequence[Round], rebuilt: tuple[float, int], capability: Sequence[dict[str, float]]) -> str:
    """The aims with what was reached."""
    first, *_, last = (one for one in rounds if one.mode == "incremental")
    seconds, (before, after, anew) = rebuilt[0], capability
    each = [one.seconds for one in rounds[1:]]
    gone = [(one.returned, one.returned_paraphrases) for one in rounds if one.returned is not None]
    lines = [
        f"reliability: {100 * min(one.reliability for one in rounds):.1f} % after the worst round",
        *(
            f"withdrawn facts {what} answered as by the base model: {100 * min(shares):.1f} % after the worst round"
            for what, shares in zip(("by prompt", "in other words"), zip(*gone, strict=True), strict=False)
        ),
        *(
            f"{kind}: {100 * before[kind]:.1f} -> {100 * after[kind]:.1f} %, by a rebuild {100 * anew[kind]:.1f} %"
            for kind in before
        ),
        f"cost of increment {last.number}: {last.seconds:.1f} s, {last.seconds / first.seconds:.2f} times that of "
        f"{first.number}, 1/{seconds / last.seconds:.1f} of a rebuild's {seconds:.1f} s ({rebuilt[1]:,} visits)",
        f"mean of the rounds after the first, rebuilds included: {statistics.fmean(each):.1f} s",
    ]
    return "\n".join(lines)


def table(rounds: Sequence[Round]) -> str:
    """Markdown, a row a round."""
    shown = ["round", "mode", "live", "reliability", "generalization", "withdrawn", "returned", "in other words"]
    header = [*shown, "visits", "seconds", "change"]
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
    parser.add_argument("--rebuild", type=int, nargs="*", default=[], metavar="ROUND")
    parser.add_argument("--location", default="5:mlp")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        sample = sample_edits(EACH + (args.rounds - 1) * (EACH - CONTRADICTED), args.seed)
        settings = read_settings(Path(folder), args.seed)
        loaded = load_model(settings.model)
        life = Life(loaded, locate(loaded.model, args.location), settings, sample, args.rounds, args.rebuild)
        capability, rounds = [life.capability()], []
        for number in range(1, args.rounds + 1):
            rounds.append(life.play(number))
            print(rounds[-1], flush=True)
        capability.append(life.capability())
        rebuilt = life.train(list(life.ledger.live.values()), None)
        life.values = rebuilt.values
        capability.append(life.capability())
    seconds, visits = rebuilt.seconds, rebuilt.visits
    print(table(rounds), summary(rounds, (seconds, visits), capability), sep="\n\n")
    found = {"rounds": [asdict(one) for one in rounds], "capability": capability}
    args.results.parent.mkdir(parents=True, exist_ok=True)
    write_json(args.results, {**found, "rebuild": {"seconds": round(seconds, 2), "visits": visits}})
    if args.picture:
        picture(rounds, seconds, args.picture)


if __name__ == "__main__":
    main()
