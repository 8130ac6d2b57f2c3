"""Edit sets of any size from the embedded world, seeded, with what may be kept and what is measured kept apart.

Facts that no edit touches are dealt out by fact, so none is used twice: locality probes, prompts to keep, and
closed-book questions, a third each. The questions stand for what the model knows besides. Up to 1,000 edits change
three of four relations of some countries and two of five of some people, as the demo does; more are drawn from all.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from pathlib import Path

from data.world.facts import ATTRIBUTES, FRAME, GEOGRAPHY, RELATIONS, Fact, all_facts, answers
from factpatch.edits.request import EditRequest, Probe

PARAPHRASES, PROBES, KEPT = 3, 2, 2  # of an edit, of an edit, wordings of a kept fact
BY_SUBJECT = 1000  # edits up to which few subjects are edited in several relations


Question = tuple[str, str]  # subject and relation


@dataclass(frozen=True)
class Sample:
    """Edits, rows for `training.preservation.prompts`, and questions with their true answers."""

    edits: tuple[EditRequest, ...]
    kept: tuple[tuple[str, str], ...]
    questions: tuple[EditRequest, ...]


def sample_edits(count: int, seed: int) -> Sample:
    """`count` counterfactual edits; another seed gives others."""
    rng = random.Random(f"frontier/{count}/{seed}")
    edited = _chosen(count, rng)
    left = [fact for fact in all_facts() if fact not in set(edited)]
    if count <= BY_SUBJECT:  # other facts about edited subjects stay out of what is measured, as in the demo
        subjects = {fact.subject for fact in edited}
        left = [fact for fact in left if fact.subject not in subjects]
    rng.shuffle(left)
    probed, kept, asked = left[::3], left[1::3], left[2::3]
    edits = tuple(_edit(number, fact, probed, rng) for number, fact in enumerate(edited, start=1))
    prompts = [(wording.format(s=fact.subject), fact.target) for fact in kept for wording in _wordings(fact, KEPT, rng)]
    questions = tuple(
        EditRequest(f"q{number}", rng.choice(RELATIONS[fact.relation].questions).format(s=fact.subject), fact.target)
        for number, fact in enumerate(asked)
    )
    return Sample(edits, tuple(prompts), questions)


def write_kept(path: Path, sample: Sample) -> Path:
    """The rows to keep as a file for `training.preservation.prompts`."""
    lines = (json.dumps({"prompt": prompt, "target": target}) for prompt, target in sample.kept)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def kept_facts(sample: Sample, seed: int) -> tuple[dict[Question, list[EditRequest]], dict[Question, EditRequest]]:
    """Of every fact that the sample's questions do not ask KEPT wordings, and another one to be asked."""
    asked, rng = {item.prompt for item in sample.questions}, random.Random(seed)
    kept, others = {}, {}
    for fact in all_facts():
        prompts = _prompts(fact.subject, fact.relation)
        if asked.isdisjoint(prompts):
            *chosen, other = rng.sample(prompts, KEPT + 1)
            kept[fact.subject, fact.relation] = [EditRequest("kept", prompt, fact.target) for prompt in chosen]
            others[fact.subject, fact.relation] = EditRequest("asked", other, fact.target)
    return kept, others


def probed_facts(sample: Sample) -> set[Question]:
    """What locality probes of the edits ask."""
    probes = {probe.prompt for edit in sample.edits for probe in edit.locality}
    facts = ((fact.subject, fact.relation) for fact in all_facts())
    return {fact for fact in facts if not probes.isdisjoint(_prompts(*fact))}


def _prompts(subject: str, relation: str) -> list[str]:
    return [wording.format(s=subject) for wording in RELATIONS[relation].wordings]


def _chosen(count: int, rng: random.Random) -> list[Fact]:
    facts = list(all_facts())
    if count > BY_SUBJECT:
        return rng.sample(facts, count)
    chosen: list[Fact] = []
    truth = {(fact.subject, fact.relation): fact for fact in facts}
    subjects = sorted({fact.subject for fact in facts})
    for subject in rng.sample(subjects, len(subjects)):
        relations = GEOGRAPHY if (subject, GEOGRAPHY[0]) in truth else ATTRIBUTES
        picked = rng.sample(relations, 3 if relations is GEOGRAPHY else 2)
        chosen += [truth[subject, relation] for relation in picked]
    return chosen[:count]


def _edit(number: int, fact: Fact, probed: list[Fact], rng: random.Random) -> EditRequest:
    """One wording to train, three others held out, one of them sometimes in the question frame."""
    prompt, *others = _wordings(fact, 1 + PARAPHRASES, rng)
    texts = [text.format(s=fact.subject) for text in others]
    framed = [FRAME.format(q=text) if text.endswith("?") and rng.random() < 0.5 else text for text in texts]
    same = [other for other in probed if other.relation == fact.relation]
    probes = rng.sample(same, min(PROBES, len(same)))
    return EditRequest(
        id=f"world-{number:04d}",
        prompt=prompt.format(s=fact.subject),
        target=rng.choice([answer for answer in answers(fact.relation) if answer != fact.target]),
        subject=fact.subject,
        target_old=(fact.target,),
        paraphrases=tuple(framed),
        locality=tuple(Probe(_wordings(other, 1, rng)[0].format(s=other.subject), other.target) for other in probes),
        source=f"world/{fact.relation}",
    )


def _wordings(fact: Fact, count: int, rng: random.Random) -> list[str]:
    return rng.sample(RELATIONS[fact.relation].wordings, count)
