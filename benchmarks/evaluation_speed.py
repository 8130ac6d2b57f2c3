"""How much sooner a release is measured than by plain generation of every answer, and with the same result.

    make run && python -m benchmarks.evaluation_speed
    python -m benchmarks.evaluation_speed --output runs/zsre --no-capability

Takes the accepted edits and the patch that a run left in its output folder. Plain generation asks every prompt once, in
batches of the same size, drawn at random and padded, each until all its answers have ended. factpatch passes once over
prompt and expected answer and decodes what that does not prove; the evaluate step does it before the patch, which fills
the trunk's cache, and after it, which reads it. Every text, and every verdict, is compared; a difference ends with exit
code 1. Capability tasks are scored with the harness's batches by length and with batches in the items' own order.

Seconds are the least of all rounds: of the clock, and in brackets of the processor, which other work disturbs less.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import lm_eval.models.huggingface
import torch
from lm_eval.models.utils import Collator
from transformers import GenerationConfig

from factpatch.edits.accepted import read_accepted
from factpatch.edits.request import EditRequest
from factpatch.evaluation.answer_reader import AnswerReader, AtAnswersEnd
from factpatch.evaluation.evaluate import CUT, METRICS, Answers, collect_answers, measure
from factpatch.models.encoding import encode_prompts, padding_id
from factpatch.models.loading import LoadedModel, load_model, preserved, write_values
from factpatch.models.locations import Location, locate
from factpatch.patches.patch import read_patch
from factpatch.settings.config import CapabilitySettings, Settings, load_settings
from tasks.regress import load_tasks, score

Result = TypeVar("Result")


@dataclass(frozen=True)
class Spent:
    """Seconds of the clock and of the processor."""

    clock: float
    processor: float

    def least(self, other: Spent | None) -> Spent:
        if other is None:
            return self
        return Spent(min(self.clock, other.clock), min(self.processor, other.processor))


@dataclass(frozen=True)
class Line:
    """One line of the table: what was measured, what it took both ways, and items that came out otherwise."""

    name: str
    items: int
    proven: int | None
    plain: Spent
    own: Spent
    different: int


def main() -> int:
    args = _arguments()
    settings = load_settings(args.config)
    loaded = load_model(settings.model)
    edits, patch = read_accepted(args.output), read_patch(Path(args.output) / "patch")
    location = locate(loaded.model, patch.manifest["location"]["name"])
    print(f"{len(edits)} edits at {location.name} of {settings.model.path}, {torch.get_num_threads()} threads")
    print("measured | items | proven by one pass | plain, s | factpatch, s | ratio | of the processor | different")
    lines: dict[str, Line] = {}
    for number in range(args.rounds):
        for line in evaluation_round(loaded, edits, settings, location, loaded.stored.from_files(patch.new), number):
            lines[line.name] = _better(line, lines.get(line.name))
    for line in lines.values():
        print(_cells(line), flush=True)
    found = list(lines.values())
    if not args.no_capability:
        limit = args.limit or settings.capability.limit
        found.append(capability_line(loaded, replace(settings.capability, limit=limit)))
        print(_cells(found[-1]))
    return int(any(line.different for line in found))


def evaluation_round(
    loaded: LoadedModel,
    edits: Sequence[EditRequest],
    settings: Settings,
    location: Location,
    values: Mapping[str, torch.Tensor],
    seed: int,
) -> Iterator[Line]:
    """The evaluate step's two measurements, and the second without kept activations, against plain generation."""
    with preserved(loaded.model, location.parameters), tempfile.TemporaryDirectory() as folder:
        kept = replace(settings, trunk=replace(settings.trunk, folder=folder))
        before, line = _compare("before the edit", loaded, edits, kept, None, location, seed)
        yield line
        write_values(loaded.model, dict(values))
        yield _compare("after the edit", loaded, edits, kept, before, location, seed)[1]
        yield _compare("after the edit, no trunk kept", loaded, edits, kept, before, None, seed)[1]


def _compare(
    name: str,
    loaded: LoadedModel,
    edits: Sequence[EditRequest],
    settings: Settings,
    before: Answers | None,
    location: Location | None,
    seed: int,
) -> tuple[Answers, Line]:
    """The answers, and what it took to have them both ways."""
    proven: list[int] = []
    answers, own = timed(
        lambda: collect_answers(loaded, edits, settings, before, lambda done, _: proven.append(done), location)
    )
    texts, plain = timed(lambda: generate_everything(loaded, list(answers.outputs), settings, seed))
    shown = {prompt: (text.removesuffix(CUT), text.endswith(CUT)) for prompt, text in answers.outputs.items()}
    different = sum(
        not texts[prompt].startswith(text) if cut else texts[prompt] != text for prompt, (text, cut) in shown.items()
    )
    whole, protocol = replace(answers, outputs=texts), settings.evaluation.protocol
    reports = [measure(edits, one, before, protocol) for one in (whole, answers)]
    different += any(reports[0][name] != reports[1][name] for name in METRICS)
    return answers, Line(name, len(texts), proven[0], plain, own, different)


def generate_everything(loaded: LoadedModel, prompts: Sequence[str], settings: Settings, seed: int) -> dict[str, str]:
    """The greedy text after each prompt, as a plain script gets it: padded batches in random order."""
    model, tokenizer, measuring = loaded.model, loaded.tokenizer, settings.evaluation
    reader, pad = AnswerReader(loaded), padding_id(tokenizer)
    config = GenerationConfig(
        do_sample=False, max_new_tokens=measuring.max_new_tokens, eos_token_id=sorted(reader.stops), pad_token_id=pad
    )
    order = list(prompts)
    random.Random(seed).shuffle(order)
    texts: dict[str, str] = {}
    for start in range(0, len(order), measuring.batch_size):
        batch = order[start : start + measuring.batch_size]
        rows = encode_prompts(tokenizer, batch, settings.edits.chat_template)
        width = max(map(len, rows))
        ids_BT = torch.tensor([(pad,) * (width - len(row)) + row for row in rows], device=model.device)
        mask_BT = torch.tensor([(0,) * (width - len(row)) + (1,) * len(row) for row in rows], device=model.device)
        with torch.no_grad():
            out_BT = model.generate(
                ids_BT,
                attention_mask=mask_BT,
                generation_config=config,
                stopping_criteria=[
                    AtAnswersEnd(reader, width, [()] * len(rows), [measuring.max_new_tokens] * len(rows))
                ],
            )
        texts |= zip(batch, (reader.answer(out).text for out in out_BT[:, width:].tolist()), strict=True)
    return texts


def capability_line(loaded: LoadedModel, settings: CapabilitySettings) -> Line:
    """The tasks' scores with batches by length, as always, and in the items' own order."""
    units = load_tasks(settings)
    ours, own = timed(lambda: score(loaded, units, settings))
    with unsorted_batches():
        theirs, plain = timed(lambda: score(loaded, units, settings))
    items = [item for name in ours for item in ours[name].items]
    others = [item for name in theirs for item in theirs[name].items]
    different = sum(left != right for left, right in zip(items, others, strict=True))
    return Line("capability, batches by length", len(items), None, plain, own, different)


@contextmanager
def unsorted_batches() -> Iterator[None]:
    """The harness with its items in the order they come in; by itself it sorts them by length."""

    class InOrder(Collator):
        def __init__(self, arr, sort_fn=None, **options) -> None:
            super().__init__(arr, sort_fn=lambda item: 0, **options)

    usual = lm_eval.models.huggingface.Collator
    lm_eval.models.huggingface.Collator = InOrder
    try:
        yield
    finally:
        lm_eval.models.huggingface.Collator = usual


def timed(work: Callable[[], Result]) -> tuple[Result, Spent]:
    """What some work gives, and what it took."""
    clock, processor = time.perf_counter(), time.process_time()
    result = work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return result, Spent(time.perf_counter() - clock, time.process_time() - processor)


def _better(line: Line, earlier: Line | None) -> Line:
    """A line of several rounds: the least seconds, and every difference."""
    if earlier is None:
        return line
    different = line.different + earlier.different
    return replace(line, plain=line.plain.least(earlier.plain), own=line.own.least(earlier.own), different=different)


def _cells(line: Line) -> str:
    return " | ".join(
        (
            line.name,
            str(line.items),
            "–" if line.proven is None else f"{line.proven} ({line.proven / line.items:.1%})",
            f"{line.plain.clock:.2f} ({line.plain.processor:.2f})",
            f"{line.own.clock:.2f} ({line.own.processor:.2f})",
            f"{line.plain.clock / line.own.clock:.1f}x",
            f"{line.plain.processor / line.own.processor:.1f}x",
            str(line.different),
        )
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config")
    parser.add_argument("--output", default="runs/latest", help="folder of a finished run (default: runs/latest)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--limit", type=int, help="items of each capability task")
    parser.add_argument("--no-capability", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())
