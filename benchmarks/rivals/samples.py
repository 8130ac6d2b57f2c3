"""Which rows are written and measured, and which others steps are tuned on: public sets, a file, or the made world."""

from __future__ import annotations

import os
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from benchmarks.world_edits import sample_edits
from factpatch.edits.loading import read_rows
from factpatch.edits.request import EditRequest, Probe
from factpatch.errors import InputError
from factpatch.evaluation.scorecard import relation_of
from factpatch.models.encoding import encode_pairs

MODELS = {"smollm2": "smollm2", "gemma": "gemma-3-270m"}  # folders in that of MODELS_VARIABLE
SETS = {"zsre": "zsre_3k.json", "counterfact": "counterfact_3k.json"}  # files in the folder of SETS_VARIABLE
MODELS_VARIABLE, SETS_VARIABLE = "FACTPATCH_MODELS", "FACTPATCH_SETS"
DEMO, WORLD = "demo", "world"  # the embedded model, and what it knows

ANSWER_TOKENS = 12  # of an answer at most, EOS included; rows with longer targets are left out
TUNING = 24  # rows that steps are chosen on
NEIGHBOURS = 100  # prompts of the same relations about other subjects, at most
WORLD_ROWS = 1000  # drawn from the world at least: what is edited, what is tuned on, and neighbours


@dataclass(frozen=True)
class Sample:
    """Rows to write and measure, rows to tune on, and prompts that ask edited relations of subjects left alone."""

    edits: tuple[EditRequest, ...]
    tuning: tuple[EditRequest, ...]
    neighbours: tuple[Probe, ...]


def model_path(name: str) -> str:
    """The folder of a model by its name here, or the path itself."""
    if name == DEMO:
        return str(Path(__file__).parents[2] / "data" / "model")
    return _path(name, MODELS, MODELS_VARIABLE)


def draw_sample(name: str, count: int, rows_from: int, seed: int, tokenizer: PreTrainedTokenizerBase) -> Sample:
    """`count` rows from row `rows_from` on, and TUNING rows of those before; InputError where there are too few."""
    if name == WORLD:
        drawn = sample_edits(max(WORLD_ROWS, count + TUNING), seed).edits
        earlier, later = drawn[:TUNING], drawn[TUNING:]
    else:
        rows = [EditRequest.from_row(row.values) for row in read_rows(_path(name, SETS, SETS_VARIABLE))]
        earlier, later = _usable(rows[:rows_from], tokenizer), _usable(rows[rows_from:], tokenizer)
        tuned_on = {edit.prompt for edit in earlier}
        later = tuple(edit for edit in later if edit.prompt not in tuned_on)
    for wanted, pool, where in ((TUNING, earlier, "before"), (count, later, "from")):
        if len(pool) < wanted:
            raise InputError(f"set '{name}' has {len(pool)} usable rows {where} row {rows_from}; {wanted} are needed")
    generator = random.Random(seed)
    edits = tuple(generator.sample(later, count))
    tuning = tuple(random.Random(0).sample(earlier, TUNING))
    return Sample(edits, tuning, _neighbours(edits, later, generator))


def _usable(rows: Sequence[EditRequest], tokenizer: PreTrainedTokenizerBase) -> tuple[EditRequest, ...]:
    """Rows whose target is new and short, one for each prompt."""
    new = {row.prompt: row for row in rows if row.target.strip() and row.target not in row.target_old}
    encoded = encode_pairs(tokenizer, [(row.prompt, row.target) for row in new.values()])
    return tuple(
        row for row, ids in zip(new.values(), encoded, strict=True) if len(ids.ids) - ids.prompt_length <= ANSWER_TOKENS
    )


def _neighbours(
    edits: Sequence[EditRequest], pool: Sequence[EditRequest], generator: random.Random
) -> tuple[Probe, ...]:
    """Prompts of rows that are not edited, whose wording with the subject taken out is that of an edited row."""
    prompts, subjects = {edit.prompt for edit in edits}, {edit.subject for edit in edits}
    relations = {relation_of(edit) for edit in edits if edit.subject}
    near = [
        Probe(row.prompt, row.target_old[0] if row.target_old else "")
        for row in pool
        if row.prompt not in prompts and row.subject not in subjects and relation_of(row) in relations
    ]
    return tuple(generator.sample(near, min(NEIGHBOURS, len(near))))


def _path(name: str, known: Mapping[str, str], variable: str) -> str:
    """The path that a name stands for, in the folder that a variable of the environment names; others are paths."""
    path = Path(name)
    if name in known:
        folder = os.environ.get(variable)
        if folder is None:
            raise InputError(f"'{name}' is {known[name]} in the folder that {variable} names; set it, or give a path")
        path = Path(folder) / known[name]
    if not path.exists():
        raise InputError(f"'{path}' does not exist; known by name: {', '.join(known)}, in the folder of {variable}")
    return str(path)
