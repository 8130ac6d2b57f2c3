"""Capability before and after the patch, through lm-evaluation-harness."""

from __future__ import annotations

import contextlib
import difflib
import functools
import logging
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import datasets
import lm_eval.evaluator
import lm_eval.utils
from lm_eval.api.group import Group
from lm_eval.api.task import Task
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from lm_eval.tasks._yaml_loader import load_yaml
from prefect import task
from tqdm import tqdm
from transformers import GenerationConfig

from factpatch.config import CapabilitySettings, Settings
from factpatch.errors import InputError
from factpatch.evaluation.intervals import wilson
from factpatch.files import output_folder, write_json, write_jsonl
from factpatch.models import LoadedModel, load_model
from factpatch.patch import apply_patch

PERCENT = frozenset({"bleu", "chrf", "ter"})  # metrics that the harness counts from 0 to 100


@dataclass(frozen=True)
class Outcome:
    """What a model did on one item. `score` is None where the metric exists for the whole corpus only, as BLEU does."""

    task: str
    index: int
    score: float | None
    output: str


@dataclass(frozen=True)
class Score:
    """A model's result on one task or group of tasks; `value` in [0, 1]."""

    metric: str
    direction: str  # "higher" or "lower" is better
    value: float
    items: tuple[Outcome, ...]


@task(name="regress", timeout_seconds=12 * 3600)
def regress(output: str, settings: Settings) -> str:
    """Score the model on the capability tasks, apply `<output>/patch` to it in memory, and score it again.

    Writes `regress.json` (a row a task) and `regress_items.jsonl` (a row an item) and returns the former's path. Raises
    InputError, before any model is loaded, for task names that do not exist or whose data cannot be had.
    """
    started = time.perf_counter()
    folder = output_folder(output)
    before: dict[str, Score] = {}
    after: dict[str, Score] = {}
    if settings.capability.tasks:
        with tamed():
            units = load_tasks(settings.capability)
            loaded = load_model(settings.model)
            loaded.model.generation_config = plain_greedy(loaded.model.generation_config)
            before = score(loaded, units, settings.capability)
            apply_patch(loaded.model, folder / "patch")
            after = score(loaded, units, settings.capability)
    write_jsonl(folder / "regress_items.jsonl", compare_items(before, after))
    table = {name: compare(before[name], after[name]) for name in before}
    report = {"schema": 1, "seconds": round(time.perf_counter() - started, 3), "tasks": table}
    return str(write_json(folder / "regress.json", report))


def load_tasks(capability: CapabilitySettings) -> list[Task | Group]:
    """The tasks and groups that the settings name, with their data; groups without a score of their own fall apart."""
    manager = task_manager(capability)
    units: list[Task | Group] = []
    for name in capability.tasks:
        try:
            loaded = manager.load([name])
        except Exception as error:  # whatever a task's builder, its data set or the hub raises
            reason = " ".join(str(error).split())[:200]
            raise InputError(f"capability task '{name}' cannot be loaded: {reason}") from error
        units += _scored_units(loaded["groups"][name]) if name in loaded["groups"] else loaded["tasks"].values()
    try:
        manager.load(units)
    except ValueError as error:
        raise InputError(f"capability.tasks: {error}; name each task once") from error
    return units


def _scored_units(group: Group) -> list[Task | Group]:
    """The group itself if it aggregates its members' scores, else its members."""
    if group.has_aggregation:
        return [group]
    return [unit for child in group for unit in (_scored_units(child) if isinstance(child, Group) else [child])]


def task_manager(capability: CapabilitySettings) -> TaskManager:
    """The harness's index of tasks: the local ones, and its own 14,000 (seconds to read) only if one of them is named.

    Raises InputError for a name that neither has.
    """
    manager = TaskManager(include_path=capability.include, include_defaults=False)
    local = manager.all_tasks
    if not set(capability.tasks) <= set(local):
        manager = TaskManager(include_path=capability.include)
    for name in capability.tasks:
        if name not in manager.task_index:
            near = difflib.get_close_matches(name, local, n=1) or difflib.get_close_matches(
                name, manager.all_tasks, n=1
            )
            hint = f"did you mean '{near[0]}'? " if near else ""
            known = f"in '{capability.include}' there are: {', '.join(local) or 'none'}"
            raise InputError(f"capability task '{name}' does not exist; {hint}{known}")
    for name in local:
        _anchor_data_files(manager.task_index[name])
    return manager


def _anchor_data_files(entry: Any) -> None:
    """Make an index entry's relative `data_files` absolute: sought beside the task's file, then in the folders above.

    The harness would seek them from the current folder.
    """
    files = ((entry.cfg or {}).get("dataset_kwargs") or {}).get("data_files")
    if not files:
        return
    folders = Path(entry.yaml_path).resolve().parents

    def anchor(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: anchor(part) for key, part in value.items()}
        if isinstance(value, list):
            return [anchor(part) for part in value]
        return next((str(folder / value) for folder in folders if (folder / value).exists()), value)

    config = load_yaml(entry.yaml_path)  # with its includes, and its !function tags resolved
    config["dataset_kwargs"] = {**config["dataset_kwargs"], "data_files": anchor(files)}
    entry.cfg, entry.yaml_path = config, None


def score(loaded: LoadedModel, units: list[Task | Group], capability: CapabilitySettings) -> dict[str, Score]:
    """Run the tasks on a model as it is in memory: greedy, fixed seeds, the same batches every time."""
    results = lm_eval.evaluator.simple_evaluate(
        model=HFLM(pretrained=loaded.model, tokenizer=loaded.tokenizer, batch_size=capability.batch_size),
        tasks=units,
        task_manager=TaskManager(include_defaults=False),  # all tasks are loaded; without it, a full index is built
        limit=capability.limit,
        bootstrap_iters=0,
        log_samples=True,
    )
    return {name: read_score(results, name, leaves) for name, leaves in map(_leaves, units)}


def plain_greedy(own: GenerationConfig) -> GenerationConfig:
    """A model's generation settings without its habits: its `max_new_tokens` or `repetition_penalty` would overrule or
    bend what a task asks for."""
    return type(own)(bos_token_id=own.bos_token_id, eos_token_id=own.eos_token_id, pad_token_id=own.pad_token_id)


def _leaves(unit: Task | Group) -> tuple[str, list[Task]]:
    """A unit's name and the tasks under it."""
    return (unit.name, unit.get_all_tasks()) if isinstance(unit, Group) else (unit.task_name, [unit])


def read_score(results: dict[str, Any], name: str, leaves: list[Task]) -> Score:
    """The first metric that the task declares, under the first filter that yields it, with its items."""
    measured = [key for key in results["results"][name] if "," in key and "_stderr," not in key]
    declared = list(leaves[0].aggregation())
    key = min(measured, key=lambda key: declared.index(key.split(",")[0]) if key.split(",")[0] in declared else 999)
    metric, _, chosen = key.partition(",")
    scale = 100 if metric in PERCENT else 1
    items = tuple(
        Outcome(leaf.task_name, sample["doc_id"], _number(sample[metric]), _output(sample))
        for leaf in leaves
        for sample in results["samples"][leaf.task_name]
        if sample["filter"] == chosen and metric in sample
    )
    direction = "higher" if results["higher_is_better"][name].get(metric, True) else "lower"
    return Score(metric, direction, results["results"][name][key] / scale, items)


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, (bool, int, float)) else None


def _output(sample: dict[str, Any]) -> str:
    """What the model answered: its text, or the likeliest of the choices."""
    responses = sample["filtered_resps"]
    if len(responses) > 1 and isinstance(responses[0], (tuple, list)):
        best = max(range(len(responses)), key=lambda index: responses[index][0])
        return sample["arguments"][best][1].strip()
    return responses[0] if isinstance(responses[0], str) else str(responses[0])


def compare(before: Score, after: Score) -> dict[str, Any]:
    """A row of `regress.json`. `broken` and `repaired` count items, or are None where items are not right or wrong."""
    pairs = [(old.score, new.score) for old, new in zip(before.items, after.items, strict=True)]
    binary = all(score in (0.0, 1.0) for pair in pairs for score in pair)
    return {
        "metric": before.metric,
        "direction": before.direction,
        "before": before.value,
        "after": after.value,
        "n": len(pairs),
        "ci95_before": _interval([old for old, _ in pairs]),
        "ci95_after": _interval([new for _, new in pairs]),
        "broken": pairs.count((1.0, 0.0)) if binary else None,
        "repaired": pairs.count((0.0, 1.0)) if binary else None,
    }


def _interval(scores: list[float | None]) -> list[float] | None:
    """The 95 % interval of the mean of shares; None without items, or for metrics that are no mean of shares."""
    shares = [score for score in scores if score is not None and 0 <= score <= 1]
    return list(wilson(sum(shares), len(shares))) if shares and len(shares) == len(scores) else None


def compare_items(before: dict[str, Score], after: dict[str, Score]) -> Iterator[dict[str, Any]]:
    """The rows of `regress_items.jsonl`."""
    for name in before:
        for old, new in zip(before[name].items, after[name].items, strict=True):
            yield {
                "task": old.task,
                "index": old.index,
                "before": old.score,
                "after": new.score,
                "output_before": old.output,
                "output_after": new.output,
            }


@contextlib.contextmanager
def tamed() -> Iterator[None]:
    """The harness without remarks, without its search for a git revision, without bars where nobody watches them, and
    with each template compiled once instead of for every item (a fifth of the time with a small model)."""
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    datasets.disable_progress_bars()
    start, templates = tqdm.__init__, lm_eval.utils.env

    def start_hidden(bar: tqdm, *arguments: Any, **options: Any) -> None:
        start(bar, *arguments, **{**options, "disable": True})  # the harness insists on disable=False

    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch.object(templates, "from_string", functools.cache(templates.from_string)))
        stack.enter_context(mock.patch.object(lm_eval.evaluator, "get_git_commit_hash", return_value=None))
        if not sys.stderr.isatty():
            stack.enter_context(mock.patch.object(tqdm, "__init__", start_hidden))
        yield
