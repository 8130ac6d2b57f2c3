"""Neighbours of the edits: their own wordings about other subjects, to be answered as the base model answers them."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence

from factpatch.config import Settings
from factpatch.edits.request import EditRequest
from factpatch.leakage import HeldOut
from factpatch.wordings import BLANK, Wordings, fill

MIXED = 2  # names that an edited subject's is mixed with, each way
Question = tuple[int, str]  # group of wordings, subject


def neighbours(
    edits: Sequence[EditRequest],
    kept: Sequence[EditRequest],
    wordings: Wordings,
    held: HeldOut,
    settings: Settings,
) -> list[EditRequest]:
    """`training.neighbours` for each edit, drawn by seed, without answers.

    A kept prompt that is put in one of the wordings is asked in the others too. A subject that is edited is asked what
    other subjects of its sort are: subjects are of one sort if they are asked, directly or through others, the same.
    And what an edit asks is asked about mixed names, such as nobody may have: what the model says there matters less
    than that an edit of Ada Berg moves neither Ada Holm nor Ugo Berg. Nothing is asked that an edit sets or a probe
    asks, in whatever wording.
    """
    generator = random.Random(settings.training.seed)
    edited = {
        (group, edit.subject) for edit in edits if edit.subject for group in [wordings.of(edit)] if group is not None
    }
    probed = {question for edit in edits for text in _held_prompts(edit) for question in _questions(text, wordings)}
    listed = {question: request.target for request in kept for question in _questions(request.prompt, wordings)}
    others = {(group, subject): "" for subject, groups in _sorts(edited, listed).items() for group in groups}
    others |= dict.fromkeys(_mixed(edited, listed, generator), "")
    measured = edited | probed
    known = {request.prompt for request in kept} | {edit.prompt for edit in edits}
    candidates = [
        (text, target)
        for (group, subject), target in sorted((others | listed).items())
        if (group, subject) not in measured
        for template in wordings.groups[group]
        for text in [fill(template, subject)]
        if text not in known and held.twin(text) is None
    ]
    wanted = min(len(candidates), round(settings.training.neighbours * len(edits)))
    drawn = generator.sample(candidates, wanted)
    return [EditRequest("neighbour", prompt, target) for prompt, target in drawn]


def _mixed(edited: Collection[Question], listed: Collection[Question], generator: random.Random) -> list[Question]:
    """Questions of the edits about subjects that share with theirs all but the first or the last word."""
    names: dict[int, list[str]] = defaultdict(list)
    for group, subject in sorted({*edited, *listed}):
        if " " in subject:
            names[group].append(subject)
    known = {subject for _, subject in (*edited, *listed)}
    mixed = []
    for group, subject in sorted(edited):
        for other in generator.choices(names[group], k=MIXED) if " " in subject else ():
            mixed.append((group, f"{subject.rpartition(' ')[0]} {other.rpartition(' ')[2]}"))
            mixed.append((group, f"{other.partition(' ')[0]} {subject.partition(' ')[2]}"))
    return [question for question in mixed if question[1] not in known]


def _held_prompts(edit: EditRequest) -> Iterable[str]:
    return (probe.prompt for probe in (*edit.locality, *edit.portability))


def _questions(text: str, wordings: Wordings) -> list[Question]:
    """What a text asks, if it is in one of the wordings: the group and the subject."""
    found = []
    for template, group in wordings.group_of.items():
        before, _, after = template.partition(BLANK)
        if len(text) > len(before) + len(after) and text.startswith(before) and text.endswith(after):
            found.append((group, text[len(before) : len(text) - len(after)]))
    return found


def _sorts(edited: Collection[Question], listed: Collection[Question]) -> Mapping[str, list[int]]:
    """For each edited subject the groups that subjects of its sort are asked in."""
    groups_of: dict[str, set[int]] = defaultdict(set)
    for group, subject in (*edited, *listed):
        groups_of[subject].add(group)
    sort: dict[int, set[int]] = {}
    for groups in groups_of.values():
        merged = set().union(*(sort.get(group, {group}) for group in groups))
        for group in merged:
            sort[group] = merged
    return {subject: sorted(sort[group]) for group, subject in sorted(edited)}
