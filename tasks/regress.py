"""Capability before and after the patch, through lm-evaluation-harness."""

from __future__ import annotations

import difflib
import hashlib
import json
import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lm_eval.evaluator
from lm_eval.api.group import Group
from lm_eval.api.task import Task
from lm_eval.tasks import TaskManager
from lm_eval.tasks._yaml_loader import load_yaml
from prefect import task

from factpatch.edits.accepted import ACCEPTED_FILE as ACCEPTED
from factpatch.edits.accepted import read_accepted
from factpatch.edits.mentions import EditMentions
from factpatch.edits.request import EditRequest
from factpatch.errors import InputError
from factpatch.evaluation import portable
from factpatch.evaluation.capability import (
    Counting,
    ItemOutcome,
    TaskScore,
    compare_items,
    compare_scores,
    keep_score,
    read_score,
    scoring_identity,
)
from factpatch.evaluation.suites import COMPRESSED, FEW_SHOT_SEED, SuiteTask, chosen_tasks
from factpatch.files import digest_value, output_folder, write_json, write_jsonl
from factpatch.models.loading import LoadedModel, preserved
from factpatch.patches.patch import apply_patch, read_patch
from factpatch.preflight.shared_model import base_model
from factpatch.progress import Progress, show_progress
from factpatch.release.record import digest_patch
from factpatch.settings.config import CapabilitySettings, Settings
from factpatch.training_data.carry_over import read_preserved
from factpatch.training_data.leakage import HeldOut
from integrations.harness import QuietModel, data_at_hand, quiet_harness, quiet_model

PERCENT = frozenset({"bleu", "chrf", "ter"})  # metrics that the harness counts from 0 to 100
CORPUS = PERCENT | {"bits_per_byte"}  # metrics that it has of all items together; of one, they are of that alone
NOTHING_COUNTS = "the base model is right on none of its items that no edit is about"


@dataclass(frozen=True)
class Unit:
    """A task, or a group with a score of its own, and how many items of each member are scored (None: all)."""

    part: Task | Group
    limit: int | None

    @property
    def name(self) -> str:
        return self.part.name if isinstance(self.part, Group) else self.part.task_name

    @property
    def leaves(self) -> list[Task]:
        """The tasks in it."""
        return self.part.get_all_tasks() if isinstance(self.part, Group) else [self.part]

    @property
    def metadata(self) -> dict[str, Any]:
        """What the task's file says about how its items count; a group says nothing."""
        return {} if isinstance(self.part, Group) else dict(self.part.get_config("metadata") or {})


@task(name="regress", timeout_seconds=12 * 3600)
def regress(output: str, settings: Settings) -> str:
    """Score the model on the capability tasks, apply `<output>/patch` to it in memory, and score it again.

    Writes `regress.json` (a row a task) and `regress_items.jsonl` (a row an item) and returns the former's path. The
    base model's scores are taken from the cache where the same were made before. Raises InputError, before any model
    is loaded, for task names that do not exist or whose data cannot be had.
    """
    started = time.perf_counter()
    folder = output_folder(output)
    before: dict[str, TaskScore] = {}
    after: dict[str, TaskScore] = {}
    cached: list[str] = []
    unmeasured: dict[str, str] = {}
    units = load_tasks(settings.capability)
    if units:
        located = read_patch(folder / "patch").manifest["location"]["parameters"]
        with base_model(settings.model) as loaded:
            units, unmeasured = askable(loaded, units)
            before, cached = score_base(loaded, units, settings)
            with preserved(loaded.model, located), show_progress("capability after") as report:
                apply_patch(loaded, folder / "patch")
                after = score(loaded, units, settings.capability, report)
    write_jsonl(folder / "regress_items.jsonl", compare_items(before, after))
    edits = read_accepted(folder) if (folder / ACCEPTED).exists() else []
    preserved_prompts = HeldOut(read_preserved(folder))
    rows = {
        unit.name: compare_scores(before[unit.name], after[unit.name], counting(unit, edits, preserved_prompts))
        for unit in units
    }
    unmeasured |= {name: NOTHING_COUNTS for name, row in rows.items() if not row["n"]}
    value = {
        "schema": 1,
        "seconds": round(time.perf_counter() - started, 3),
        "suite": settings.capability.suite if settings.capability.tasks is None else None,
        "cached": cached,
        "patch": digest_patch(folder / "patch") if units else None,
        "tasks": {name: row for name, row in rows.items() if row["n"]},
        "unmeasured": unmeasured,
    }
    return str(write_json(folder / "regress.json", value))


def askable(loaded: LoadedModel, units: list[Unit]) -> tuple[list[Unit], dict[str, str]]:
    """The units that this model can be asked, and why not the others."""
    if loaded.tokenizer.chat_template is not None:
        return units, {}
    told = {unit.name: "the model's tokenizer has no chat template" for unit in units if unit.metadata.get("chat")}
    return [unit for unit in units if unit.name not in told], told


def counting(unit: Unit, edits: Sequence[EditRequest], preserved_prompts: HeldOut) -> Counting:
    """Which of its items count: none about an edit's subject, and none whose answer training preserved."""
    said = unit.metadata
    about, left_out = said.get("about"), set()
    if about and edits:
        edited = EditMentions(edits)
        (leaf,) = unit.leaves
        left_out = {
            (leaf.task_name, index)
            for index, doc in enumerate(leaf.eval_docs)
            if edited.names(doc[about]) or any(map(preserved_prompts.twin, doc.get("wordings") or [doc["text"]]))
        }
    return Counting(bool(said.get("known")), said.get("chance"), left_out)


def load_tasks(capability: CapabilitySettings) -> list[Unit]:
    """The tasks and groups that the settings name, with their data; groups without a score of their own fall apart.

    Raises InputError, in one line, for a task that does not exist, that has no item, or whose data cannot be had.
    """
    chosen = chosen_tasks(capability)
    if not chosen:
        return []
    units: list[Unit] = []
    with quiet_harness():
        manager, remote = task_manager(capability, [wanted.name for wanted in chosen])
        with data_at_hand(asked=remote):
            for wanted in chosen:
                units += [Unit(part, wanted.limit) for part in _load(manager, wanted)]
        try:
            manager.load([unit.part for unit in units])
        except ValueError as error:
            raise InputError(f"capability.tasks: {error}; name each task once") from error
    return units


def _load(manager: TaskManager, wanted: SuiteTask) -> list[Task | Group]:
    """A task by name with its data and worked examples."""
    try:
        loaded = manager.load([wanted.name])
        empty = [name for name, leaf in loaded["tasks"].items() if not len(leaf.eval_docs)]
    except Exception as error:  # whatever a task's builder, its data set or the hub raises
        reason = " ".join(str(error).split())[:200]
        fix = "download its data where there is a network, or name other tasks in capability.tasks"
        raise InputError(f"capability task '{wanted.name}' cannot be loaded: {reason}; {fix}") from error
    if empty:
        raise InputError(f"capability task '{empty[0]}' has no item; add rows to its data, or leave it out")
    for leaf in loaded["tasks"].values():
        shots = wanted.shots if wanted.shots is not None else leaf.get_config("num_fewshot")
        leaf.set_config(key="num_fewshot", value=shots or 0)
    groups = loaded["groups"]
    return _scored_parts(groups[wanted.name]) if wanted.name in groups else list(loaded["tasks"].values())


def _scored_parts(group: Group) -> list[Task | Group]:
    """The group itself if it aggregates its members' scores, else its members."""
    if group.has_aggregation:
        return [group]
    return [part for child in group for part in (_scored_parts(child) if isinstance(child, Group) else [child])]


def task_manager(capability: CapabilitySettings, names: Iterable[str]) -> tuple[TaskManager, bool]:
    """The harness's index of tasks: the local ones, and its own 14,000 (seconds to read) only if one of them is named;
    and whether one of them is. Raises InputError for a name that neither has.
    """
    folders: list[str | Path] = [portable.SUITE_FOLDER, *([capability.include] if capability.include else [])]
    manager = TaskManager(include_path=folders, include_defaults=False)
    local = manager.all_tasks
    remote = not set(names) <= set(local)
    if remote:
        manager = TaskManager(include_path=folders)
    for name in names:
        if name not in manager.task_index:
            near = difflib.get_close_matches(name, local, n=1) or difflib.get_close_matches(
                name, manager.all_tasks, n=1
            )
            hint = f"did you mean '{near[0]}'? " if near else ""
            known = f"here there are: {', '.join(local)}; capability.include names a folder with others"
            raise InputError(f"capability task '{name}' does not exist; {hint}{known}")
    for name in local:
        _anchor_data_files(manager.task_index[name])
    if capability.text is not None:
        _put_text(manager.task_index["portable_text"], capability.text)
    return manager, remote


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


def _put_text(entry: Any, path: str) -> None:
    """The user's paragraphs in place of those that come along."""
    if not Path(path).is_file():
        raise InputError(f"capability.text '{path}' is no file; name one with a paragraph a line, or null")
    builder = "json" if Path(path).suffix in (".jsonl", ".json") else "text"
    entry.cfg = {
        **entry.cfg,
        "dataset_path": builder,
        "dataset_kwargs": {"data_files": {"test": str(Path(path).resolve())}},
    }


def score_base(loaded: LoadedModel, units: list[Unit], settings: Settings) -> tuple[dict[str, TaskScore], list[str]]:
    """The base model's scores, and the names of those that an earlier run had made and kept."""
    folder, base = settings.capability.cache, scoring_identity(loaded, settings)
    digests = {unit.name: digest_value({**base, **_unit_identity(unit)}) for unit in units}
    kept = {name: read_score(folder, digest) for name, digest in digests.items()}
    missing = [unit for unit in units if kept[unit.name] is None]
    with show_progress("capability before") as report:
        made = score(loaded, missing, settings.capability, report)
    for name, value in made.items():
        keep_score(folder, digests[name], value)
    scores = {unit.name: made.get(unit.name) or kept[unit.name] for unit in units}
    return {name: value for name, value in scores.items() if value}, [name for name in digests if name not in made]


def _unit_identity(unit: Unit) -> dict[str, Any]:
    """What a score depends on, but for the model: how each task asks, and every document that it may take."""
    digest = hashlib.sha256()
    for leaf in unit.leaves:
        shown = leaf.fewshot_docs() if leaf.get_config("num_fewshot") else ()
        for part in ([leaf.dump_config()], leaf.eval_docs, shown):
            for row in part:
                digest.update(json.dumps(row, sort_keys=True, default=str).encode())
            digest.update(b"\0")
    return {"task": unit.name, "content": digest.hexdigest(), "limit": unit.limit, "seed": FEW_SHOT_SEED}


def score(
    loaded: LoadedModel, units: list[Unit], capability: CapabilitySettings, progress: Progress | None = None
) -> dict[str, TaskScore]:
    """Run the tasks on a model as it is in memory: greedy, the same worked examples and the same batches every time."""
    if not units:
        return {}
    with quiet_model(loaded, capability.batch_size, progress) as model:
        return {unit.name: _score_unit(model, unit) for unit in units}


def _score_unit(model: QuietModel, unit: Unit) -> TaskScore:
    for leaf in unit.leaves:
        leaf.set_fewshot_seed(seed=FEW_SHOT_SEED)
    chosen = TaskManager(include_defaults=False).load([unit.part])
    results = lm_eval.evaluator.evaluate(
        model,
        chosen,
        limit=unit.limit,
        bootstrap_iters=0,
        log_samples=True,
        apply_chat_template=bool(unit.metadata.get("chat")),
    )
    return summarise(results, unit)


def summarise(results: dict[str, Any], unit: Unit) -> TaskScore:
    """The first metric that the task declares, under the first filter that yields it, with its items.

    A metric that exists for the whole corpus only, such as BLEU, is taken of each item alone for the items' scores.
    """
    name, leaves = unit.name, unit.leaves
    measured = [key for key in results["results"][name] if "," in key and "_stderr," not in key]
    aggregations = leaves[0].aggregation()
    declared = list(aggregations)
    key = min(measured, key=lambda key: declared.index(key.split(",")[0]) if key.split(",")[0] in declared else 999)
    metric, _, chosen = key.partition(",")
    scale = 100 if metric in PERCENT else 8 if metric == "bits_per_byte" else 1

    def single(value: Any) -> float | None:
        if not isinstance(value, (bool, int, float)):
            value = aggregations[metric]([value]) / scale if metric in CORPUS else math.nan
        return float(value) if math.isfinite(value) else None

    items = tuple(
        ItemOutcome(leaf.task_name, sample["doc_id"], single(sample[metric]), _output(sample))
        for leaf in leaves
        for sample in results["samples"][leaf.task_name]
        if sample["filter"] == chosen and metric in sample
    )
    direction = "higher" if results["higher_is_better"][name].get(metric, True) else "lower"
    value = results["results"][name][key] / scale
    if not math.isfinite(value):
        value = float(direction == "lower")  # as bad as can be
    return TaskScore(COMPRESSED if metric == "bits_per_byte" else metric, direction, value, items)


def _output(sample: dict[str, Any]) -> str:
    """What the model answered: its text, or the likeliest of the choices."""
    responses = sample["filtered_resps"]
    if len(responses) > 1 and isinstance(responses[0], (tuple, list)):
        best = max(range(len(responses)), key=lambda index: responses[index][0])
        return sample["arguments"][best][1].strip()
    return responses[0] if isinstance(responses[0], str) else str(responses[0])
