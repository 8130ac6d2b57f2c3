"""Neighbours of the edits: their own wordings about other subjects, to be answered as the base model answers them."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from transformers import PreTrainedTokenizerBase

from factpatch.edits.request import EditRequest
from factpatch.settings.config import Settings
from factpatch.settings.training import PreservationSettings
from factpatch.training_data.leakage import HeldOut
from factpatch.training_data.templates import TemplateGroups, fill_template

MIXED_NAMES = 2  # names that an edited subject's is mixed with, each way
OWN_SHARE = 1 / 3  # of them ask about subjects that are edited, where there is so much to ask
MOST_EACH = 32  # for each edit, of names like its subject, where there are few edits
SURPLUS = 1.5  # times as many for each edit that joins an earlier version's
GroupedQuestion = tuple[int, str]  # group of wordings, subject


def neighbours_of_few(preservation: PreservationSettings, edits: int) -> int:
    """How many names like the edits' subjects are asked about at least, where so many edits are few."""
    return min(preservation.least, round(MOST_EACH * edits))


def draw_neighbours(
    edits: Sequence[EditRequest],
    kept: Sequence[EditRequest],
    wordings: TemplateGroups,
    held: HeldOut,
    settings: Settings,
    tokenizer: PreTrainedTokenizerBase,
    learnt_before: Sequence[EditRequest] = (),
    carried_over: Collection[str] = (),
    similar: Callable[[list[str]], list[list[str]]] | None = None,
) -> list[EditRequest]:
    """Prompts like the edits' about other subjects, `training.preservation.neighbours` for each edit, without answers.

    They are half as many again where other edits were `learnt_before`, since these few edits have only their own to
    guard what lies near. Of those `carried_over` none is drawn.

    A preserved prompt put in one of the wordings is asked in the others too. A subject that an edit or a preserved
    prompt names is asked what other subjects of its sort are: subjects are of one sort if they are asked, directly or
    through others, the same. A third goes to those that are edited, whom somebody is sure to ask about. And what an
    edit asks is asked about mixed names, such as nobody may have: what the model says there matters less than that an
    edit of Ada Berg moves neither Ada Holm nor Ugo Berg, and one of Thailand neither Thailon nor Leailand. So subjects
    are guarded that no file names. Where all that is too little, as for prompts of which no two are alike, each edit's
    question is asked about names that are `similar` to its subject, the most alike first; of few edits up to
    MOST_EACH for each, and `training.preservation.least` in all, as an epoch visits that many. Nothing is asked that
    an edit or a `learnt_before` one sets, or a probe asks, in whatever wording; nothing twice before all is asked once.
    """
    generator = random.Random(settings.training.seed)
    edited, everything = _edited(edits, wordings), [*edits, *learnt_before]
    measured = _measured(everything, wordings)
    listed = {question: request.target for request in kept for question in wordings.asked(request.prompt)}
    named = {(group, subject) for subject, groups in _sorts({*edited, *listed}).items() for group in groups}
    subjects = {subject for _, subject in edited}
    own = {(group, subject) for group, subject in named if subject in subjects}
    others = {*named, *_mixed(edited, listed, tokenizer, generator)}
    known = {*carried_over, *(request.prompt for request in (*kept, *everything))}

    def requests(questions: Collection[GroupedQuestion]) -> list[EditRequest]:
        """All wordings of all questions, in an order that asks each question once before any is asked again."""
        turns = []
        for group, subject in sorted(questions):
            texts = [fill_template(template, subject) for template in wordings.groups[group]]
            free = [text for text in texts if text not in known and held.twin(text) is None]
            target = listed.get((group, subject), "")
            asked = [EditRequest("neighbour", text, target) for text in generator.sample(free, len(free))]
            turns += [(turn, generator.random(), request) for turn, request in enumerate(asked)]
        return [request for _, _, request in sorted(turns, key=lambda drawn: drawn[:2])]

    near, far = requests(own - measured), requests(others - own - measured)
    each = settings.training.preservation.neighbours * (SURPLUS if learnt_before else 1)
    wanted = round(each * len(edits))
    if similar is not None and len(near) + len(far) < wanted:
        wanted = max(wanted, neighbours_of_few(settings.training.preservation, len(edits)))
        ranks = _about_similar(sorted(edited), similar)
        far += [request for rank in ranks for request in requests(set(rank) - measured - others - own)]
    count = min(len(near) + len(far), wanted)
    first = max(count - len(far), min(len(near), round(OWN_SHARE * count)))
    return near[:first] + far[: count - first]


def _about_similar(
    edited: Sequence[GroupedQuestion], similar: Callable[[list[str]], list[list[str]]]
) -> list[list[GroupedQuestion]]:
    """The edits' questions about the names most like their subjects, then about the next ones, and so on."""
    names = similar([subject for _, subject in edited])
    most = max(map(len, names), default=0)
    return [
        [(group, own[rank]) for (group, _), own in zip(edited, names, strict=True) if rank < len(own)]
        for rank in range(most)
    ]


def still_valid_neighbours(
    carried_over: Sequence[str], edits: Sequence[EditRequest], wordings: TemplateGroups, held: HeldOut
) -> list[str]:
    """Those of an earlier version's neighbours that no edit sets and no probe asks by now, in whatever wording."""
    own, measured = {edit.prompt for edit in edits}, _measured(edits, wordings)
    return [
        text
        for text in carried_over
        if text not in own and held.twin(text) is None and measured.isdisjoint(wordings.asked(text))
    ]


def _measured(edits: Sequence[EditRequest], wordings: TemplateGroups) -> set[GroupedQuestion]:
    """What the edits set, and what their probes ask."""
    texts = (text for edit in edits for text in _held_prompts(edit))
    return _edited(edits, wordings) | {question for text in texts for question in wordings.asked(text)}


def _edited(edits: Sequence[EditRequest], wordings: TemplateGroups) -> set[GroupedQuestion]:
    """What the edits ask, where they name their subjects."""
    groups = ((wordings.of(edit), edit.subject) for edit in edits)
    return {(group, subject) for group, subject in groups if group is not None and subject}


def _mixed(
    edited: Collection[GroupedQuestion],
    listed: Collection[GroupedQuestion],
    tokenizer: PreTrainedTokenizerBase,
    generator: random.Random,
) -> list[GroupedQuestion]:
    """Questions of the edits about subjects that share with theirs all but the first or the last part."""
    parts = {subject: name_parts(tokenizer, subject) for _, subject in sorted({*edited, *listed})}
    alike: dict[tuple[int, bool], list[list[str]]] = defaultdict(list)  # names of several words, and single words
    for group, subject in sorted({*edited, *listed}):
        if len(parts[subject]) > 1:
            alike[group, " " in subject].append(parts[subject])
    mixed = []
    for group, subject in sorted(edited):
        own = parts[subject]
        for other in generator.choices(alike[group, " " in subject], k=MIXED_NAMES) if len(own) > 1 else ():
            mixed += [(group, "".join([*own[:-1], other[-1]])), (group, "".join([other[0], *own[1:]]))]
    return [(group, name) for group, name in mixed if name not in parts]


def name_parts(tokenizer: PreTrainedTokenizerBase, name: str) -> list[str]:
    """The words of a name, or the tokens of a single word as they stand after a blank; joined they are the name. The
    whole name where its tokens are no text of their own."""
    first, *words = name.split(" ")
    if words:
        return [first, *(f" {word}" for word in words)]
    ids = tokenizer(f" {name}", add_special_tokens=False).input_ids
    start, *pieces = (str(tokenizer.decode([token])) for token in ids)
    parts = [start.strip(), *pieces]
    return parts if "".join(parts) == name and parts[0] else [name]


def _held_prompts(edit: EditRequest) -> Iterable[str]:
    return (probe.prompt for probe in (*edit.locality, *edit.portability))


def _sorts(questions: Collection[GroupedQuestion]) -> Mapping[str, list[int]]:
    """For each subject the groups that subjects of its sort are asked in."""
    groups_of: dict[str, set[int]] = defaultdict(set)
    for group, subject in questions:
        groups_of[subject].add(group)
    sort: dict[int, set[int]] = {}
    for groups in groups_of.values():
        merged = set().union(*(sort.get(group, {group}) for group in groups))
        for group in merged:
            sort[group] = merged
    return {subject: sorted(sort[min(groups)]) for subject, groups in groups_of.items()}
