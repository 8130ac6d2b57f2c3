"""Facts to protect while others are edited: prompts whose answers must stay, none of which is measured anywhere.

A fact is taken only if no demo edit touches its subject, no locality probe asks it in any wording, and no held-out
closed-book question is about it. So locality and capability are measured on facts that training never saw.
"""

from __future__ import annotations

import random

from data.world.edits import demo_edits, edited_subjects
from data.world.facts import RELATIONS, SEED, all_facts
from data.world.families import held_out_questions

WORDINGS = 2  # of each fact


def protected() -> list[dict[str, object]]:
    """Rows of prompt and target."""
    rng = random.Random(f"{SEED}/protected")
    edited = edited_subjects()
    asked = {item.key.rsplit("|", 1)[0] for item in held_out_questions()}
    probed = {probe["prompt"] for row in demo_edits() for probe in row["locality"]}  # type: ignore[attr-defined]
    rows: list[dict[str, object]] = []
    for fact in all_facts():
        prompts = [wording.format(s=fact.subject) for wording in RELATIONS[fact.relation].wordings]
        measured = f"{fact.subject}|{fact.relation}" in asked or not probed.isdisjoint(prompts)
        if fact.subject not in edited and not measured:
            for prompt in rng.sample(prompts, WORDINGS):
                rows.append({"prompt": prompt, "target": fact.target, "source": f"world/{fact.relation}"})
    return rng.sample(rows, len(rows))
