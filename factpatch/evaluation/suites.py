"""Named sets of capability tasks, with everything that the score depends on pinned."""

from __future__ import annotations

from dataclasses import dataclass, replace

from factpatch.settings.config import CapabilitySettings

COMPRESSED = "compressed_size"  # metric of text: what it takes in the model's eyes, bits a byte / 8
FEW_SHOT_SEED = 1234  # of the choice of worked examples, where a task does not list them


@dataclass(frozen=True)
class SuiteTask:
    """One task of lm-evaluation-harness.

    `shots` is the number of worked examples before each question and `limit` the number of items, of each member in a
    group such as mmlu; None leaves the task's own number of examples, and all items.
    """

    name: str
    shots: int | None = None
    limit: int | None = None


# The five kinds of the paper (LocFT-BF, arXiv 2509.22072), for the embedded model and for models from the hub.
EMBEDDED = (
    SuiteTask("world_choice", shots=0),
    SuiteTask("world_questions", shots=0),
    SuiteTask("world_sentiment", shots=0),
    SuiteTask("world_translation", shots=0),
    SuiteTask("world_arithmetic", shots=0),
)
PAPER = (
    SuiteTask("mmlu", shots=5, limit=20),  # 57 subjects: 1,140 items
    SuiteTask("nq_open", shots=5, limit=1000),
    SuiteTask("sst2", shots=5),  # 872 items
    SuiteTask("wmt16-de-en", shots=5, limit=500),
    SuiteTask("gsm8k", shots=5, limit=500),
)
WIDE = (
    *PAPER,
    SuiteTask("truthfulqa_mc2", shots=0),  # 817 items
    SuiteTask("ifeval", shots=0),  # 541 items
    SuiteTask("arc_challenge", shots=25),  # 1,172 items
)
PORTABLE = (  # their data come along: for models of any origin
    SuiteTask("portable_text", shots=0, limit=48),
    SuiteTask("portable_questions", shots=0),
    SuiteTask("portable_sentiment", shots=3),
    SuiteTask("portable_sums", shots=3),
    SuiteTask("portable_choice", shots=0),
    SuiteTask("portable_instructions", shots=0),
)
SUITES = {"portable": PORTABLE, "embedded": EMBEDDED, "paper": PAPER, "wide": WIDE}


def chosen_tasks(settings: CapabilitySettings) -> tuple[SuiteTask, ...]:
    """The suite's tasks, or those that the settings name instead; `limit` in the settings wins over the suite's."""
    tasks = SUITES[settings.suite] if settings.tasks is None else tuple(map(SuiteTask, settings.tasks))
    if settings.text is not None:  # all of it counts
        tasks = tuple(replace(task, limit=None) if task.name == "portable_text" else task for task in tasks)
    limit = settings.limit
    return tasks if limit is None else tuple(SuiteTask(task.name, task.shots, limit) for task in tasks)
