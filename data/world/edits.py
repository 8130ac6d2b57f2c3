"""The demonstration edits: counterfactual changes to the world, with paraphrases and locality probes."""

from __future__ import annotations

import random
from functools import lru_cache

from data.world.facts import ATTRIBUTES, FRAME, GEOGRAPHY, RELATIONS, SEED, Fact, all_facts, answers

COUNTRIES, PER_COUNTRY = 40, 3
PERSONS, PER_PERSON = 60, 2


@lru_cache(maxsize=1)
def edited_facts() -> tuple[Fact, ...]:
    """The 240 facts that the demo changes: three of four relations of 40 countries, two of five of 60 people."""
    rng = random.Random(f"{SEED}/edits")
    truth = {(fact.subject, fact.relation): fact for fact in all_facts()}
    chosen: list[Fact] = []
    for relations, subjects, each in ((GEOGRAPHY, COUNTRIES, PER_COUNTRY), (ATTRIBUTES, PERSONS, PER_PERSON)):
        names = sorted({fact.subject for fact in all_facts() if fact.relation == relations[0]})
        assert subjects * 4 <= len(names), "at most a quarter of the subjects may be edited"
        for number, subject in enumerate(rng.sample(names, subjects)):
            picked = [relations[(number * each + step) % len(relations)] for step in range(each)]
            chosen += [truth[subject, relation] for relation in picked]
    return tuple(chosen)


@lru_cache(maxsize=1)
def edited_subjects() -> frozenset[str]:
    """Subjects that any edit touches; neither probes nor held-out questions may be about them."""
    return frozenset(fact.subject for fact in edited_facts())


def demo_edits() -> list[dict[str, object]]:
    """The demo's edit requests in the native form: five of every six edited facts, 200 in all."""
    rng = random.Random(f"{SEED}/demo")
    untouched = [fact for fact in all_facts() if fact.subject not in edited_subjects()]
    rows: list[dict[str, object]] = []
    for number, fact in enumerate(edited_facts(), start=1):
        relation = RELATIONS[fact.relation]
        wording = rng.choice(relation.wordings)
        others = [other for other in relation.wordings if other != wording]
        question = rng.choice([other for other in others if other in relation.questions])
        paraphrases = [question, *rng.sample([other for other in others if other != question], 2)]
        probes = rng.sample([other for other in untouched if other.relation == fact.relation], 2)
        texts = [text.format(s=fact.subject) for text in paraphrases]
        if rng.random() < 0.5:
            texts[0] = FRAME.format(q=texts[0])
        target = rng.choice([answer for answer in answers(fact.relation) if answer != fact.target])
        rows.append(
            {
                "id": f"demo-{number:04d}",
                "prompt": wording.format(s=fact.subject),
                "target": target,
                "subject": fact.subject,
                "target_old": fact.target,
                "paraphrases": texts,
                "locality": [
                    {"prompt": rng.choice(relation.wordings).format(s=probe.subject), "target": probe.target}
                    for probe in probes
                ],
                "source": f"world/{fact.relation}",
                "owner": "factpatch",
            }
        )
    prompts = {row["prompt"] for row in rows}
    assert len(prompts) == len(rows) == 240
    rows = [row for number, row in enumerate(rows, start=1) if number % 6]
    for row in rows:
        assert row["target"] != row["target_old"]
        assert all(probe["prompt"] not in prompts for probe in row["locality"])  # type: ignore[attr-defined]
    return rows
