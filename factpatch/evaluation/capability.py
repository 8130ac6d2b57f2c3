"""Scores on general tasks, before and after an edit, item by item; and the base model's kept for later runs."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import fmean
from typing import Any

from transformers import GenerationConfig

from factpatch.disk_cache import read_cached_json
from factpatch.evaluation.intervals import wilson
from factpatch.evaluation.paired import Interval, bootstrap_interval, relative_rise, score_interval
from factpatch.evaluation.suites import COMPRESSED
from factpatch.files import output_folder, write_json
from factpatch.models.loading import LoadedModel, fingerprint, known_digests, tokenizer_digest
from factpatch.settings.config import Settings


@dataclass(frozen=True)
class ItemOutcome:
    """What a model did on one item. `score` is None where the metric says nothing of a single item."""

    task: str
    index: int
    score: float | None
    output: str


@dataclass(frozen=True)
class TaskScore:
    """A model's result on one task or group of tasks; `value` in [0, 1], but COMPRESSED, which may pass 1."""

    metric: str
    direction: str  # "higher" or "lower" is better
    value: float
    items: tuple[ItemOutcome, ...]


@dataclass(frozen=True)
class Counting:
    """Which items of a task count, as `metadata` in the task's file says.

    Attributes:
        known: only those that the model answered right before (`known: true`).
        chance: share right by guessing (`chance: 0.5`); a model that is not surely better has nothing to lose.
        left_out: items, as (task, index), about what the edits name (`about: FIELD` names the items' field), or whose
            answer training preserved.
    """

    known: bool = False
    chance: float | None = None
    left_out: Collection[tuple[str, int]] = ()


def scores_that_count(before: TaskScore, after: TaskScore, counting: Counting) -> tuple[TaskScore, TaskScore]:
    """Scores before and after, over the items that count alone."""
    kept = [
        (old, new)
        for old, new in zip(before.items, after.items, strict=True)
        if (old.task, old.index) not in counting.left_out and (old.score == 1.0 or not counting.known)
    ]
    if len(kept) == len(before.items):
        return before, after
    return _over(before, [old for old, _ in kept]), _over(after, [new for _, new in kept])


def _over(score: TaskScore, items: list[ItemOutcome]) -> TaskScore:
    value = fmean(item.score or 0.0 for item in items) if items else 0.0
    return TaskScore(score.metric, score.direction, value, tuple(items))


def compare_scores(before: TaskScore, after: TaskScore, counting: Counting | None = None) -> dict[str, Any]:
    """A row of `regress.json`.

    `broken` and `repaired` count items that got worse and better, or are None where items are not right or wrong;
    `fall` is the mean fall of the items (positive is worse) with its paired 95 % interval, None without item scores.
    Of compressed sizes it is the mean rise as a share of what they were. `asked` counts all items, `n` those that
    count.
    """
    counting, asked = counting or Counting(), len(before.items)
    before, after = scores_that_count(before, after, counting)
    sign = 1.0 if before.direction == "higher" else -1.0
    scores = [(old.score, new.score) for old, new in zip(before.items, after.items, strict=True)]
    extra = {"asked": asked, "known": counting.known, "chance": counting.chance}
    if before.metric == COMPRESSED:
        return {**_compare_sizes(before, after), **extra}
    pairs = [(old, new) for old, new in scores if old is not None and new is not None]
    complete = bool(pairs) and len(pairs) == len(scores)
    falls = [sign * (old - new) for old, new in pairs] if complete else []
    binary = complete and all(score in (0.0, 1.0) for pair in pairs for score in pair)
    broken, repaired = falls.count(1.0), falls.count(-1.0)
    interval = _fall_interval(falls, (broken, repaired) if binary else None)
    return {
        "metric": before.metric,
        "direction": before.direction,
        "before": before.value,
        "after": after.value,
        "n": len(scores),
        "ci95_before": _interval([old for old, _ in scores]),
        "ci95_after": _interval([new for _, new in scores]),
        "broken": broken if binary else None,
        "repaired": repaired if binary else None,
        "fall": fmean(falls) if interval else None,
        "ci95_fall": list(interval) if interval else None,
        **extra,
    }


def _compare_sizes(before: TaskScore, after: TaskScore) -> dict[str, Any]:
    old, new = ([math.nan if item.score is None else item.score for item in score.items] for score in (before, after))
    rise = relative_rise(old, new)
    return {
        "metric": before.metric,
        "direction": before.direction,
        "before": before.value,
        "after": after.value,
        "n": len(before.items),
        "ci95_before": None,
        "ci95_after": None,
        "broken": None,
        "repaired": None,
        "fall": rise[0] if rise else None,
        "ci95_fall": list(rise[1]) if rise else None,
    }


def _fall_interval(falls: list[float], turned: tuple[int, int] | None) -> Interval | None:
    """None without items, or for scores beyond [0, 1], which no margin in shares can judge."""
    if turned:
        return score_interval(*turned, len(falls))
    return bootstrap_interval(falls) if falls and max(map(abs, falls)) <= 1 else None


def _interval(scores: list[float | None]) -> list[float] | None:
    """The 95 % interval of the mean of shares; None without items, or for metrics that are no mean of shares."""
    shares = [score for score in scores if score is not None and 0 <= score <= 1]
    return list(wilson(sum(shares), len(shares))) if shares and len(shares) == len(scores) else None


def compare_items(before: Mapping[str, TaskScore], after: Mapping[str, TaskScore]) -> Iterator[dict[str, Any]]:
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


def read_score(folder: str | None, digest: str) -> TaskScore | None:
    """The score kept under a digest; None if there is none, or the file is damaged."""
    return None if folder is None else read_cached_json(Path(folder) / f"{digest}.json", _score)


def _score(value: Any) -> TaskScore:
    items = tuple(ItemOutcome(**row) for row in value["items"])
    return TaskScore(value["metric"], value["direction"], value["value"], items)


def keep_score(folder: str | None, digest: str, score: TaskScore) -> None:
    """Keep a score for later runs, if the settings name a folder for it."""
    if folder is not None:
        write_json(output_folder(folder) / f"{digest}.json", asdict(score))


def scoring_identity(loaded: LoadedModel, settings: Settings) -> dict[str, Any]:
    """What a model's answers depend on, but for the task."""
    return {
        "base": fingerprint(known_digests(loaded.model)),
        "config": loaded.model.config.to_json_string(),
        "tokenizer": tokenizer_digest(loaded.tokenizer),
        "dtype": settings.model.dtype,
        "device": settings.model.device,
        "batch_size": settings.capability.batch_size,
        "versions": {name: version(name) for name in ("lm_eval", "torch", "transformers")},
    }


def plain_greedy(own: GenerationConfig) -> GenerationConfig:
    """A model's generation settings without its habits: its `max_new_tokens` or `repetition_penalty` would overrule or
    bend what a task asks for."""
    return type(own)(bos_token_id=own.bos_token_id, eos_token_id=own.eos_token_id, pad_token_id=own.pad_token_id)
