"""Neighbours in the forms that edits are trained in: what is taught in a form alone would soon be said there to every
question."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from factpatch.edits.request import EditRequest
from factpatch.files import digest_value
from factpatch.settings.config import Settings
from factpatch.training_data.augmentation import FRAMES
from factpatch.training_data.leakage import HeldOut
from factpatch.training_data.templates import BLANK, TemplateGroups


def in_trained_forms(
    neighbours: Sequence[EditRequest],
    edits: Sequence[EditRequest],
    wordings: TemplateGroups,
    settings: Settings,
    held: HeldOut,
    has_chat: bool,
) -> tuple[list[EditRequest], list[EditRequest]]:
    """Neighbours to be asked in the edits' own form, and those to be asked in the other form: all as they stand, and a
    third each in a frame and in the other form as well, as far as edits are trained so. Which they are hangs on their
    prompts and the seed alone."""
    asked, seed = settings.training.augmentation, settings.training.seed
    chats = asked.both_forms and has_chat
    in_frames = asked.wordings > 0 and not any(_has_other_templates(edit, wordings) for edit in edits)
    own, other = list(neighbours), []
    for neighbour in neighbours:
        draw = int(digest_value([seed, neighbour.prompt])[:8], 16)
        text = FRAMES[draw // 3 % len(FRAMES)].replace(BLANK, neighbour.prompt)
        if draw % 3 == 0 and chats:
            other.append(neighbour)
        elif draw % 3 == 1 and in_frames and held.twin(text) is None:
            own.append(replace(neighbour, prompt=text))
    return own, other


def _has_other_templates(edit: EditRequest, wordings: TemplateGroups) -> bool:
    group = wordings.of(edit)
    return group is not None and len(wordings.groups[group]) > 1
