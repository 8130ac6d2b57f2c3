"""Further wordings of the edits, for training alone: other templates, unrelated prefixes, the other form."""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping, Sequence

from factpatch.edits.request import EditRequest, Wording
from factpatch.settings.config import Settings
from factpatch.text.blanks import join
from factpatch.training_data.leakage import HeldOut
from factpatch.training_data.templates import BLANK, TemplateGroups, fill_template, template_of

FRAMED = 1  # times that an edit's prompt stands in a frame; other edits' stand in others, and each row costs alike
FRAMES = (  # in which a prompt is asked like that or stands by chance; those of `probes`, which measure, are others
    "Question: {}\nAnswer:",
    "User: {}\nAssistant:",
    "Here is something I would like to know. {}",
    "Tell me: {}",
    "{}\n",
    "The train was late again, and nobody on the platform said a word. {}",
    "It rained all night.\n\n{}",
    "She closed the book, looked out of the window and thought of the next day. {}",
)


def augment(
    edits: Sequence[EditRequest],
    wordings: TemplateGroups,
    reworded: Mapping[str, Sequence[str]],
    prefixes: Sequence[str],
    settings: Settings,
    held: HeldOut,
    taken: Collection[str],
    has_chat: bool,
) -> list[Wording]:
    """The further wordings of all edits, shuffled by seed; none is held out or nearly so, or `taken` by an edit's own
    prompt. Templates come before what the model made itself (`reworded`, by prompt), and where both are too few, the
    prompt stands inside other text. `has_chat` says whether the model has a form for chats."""
    asked, chat = settings.training.augmentation, settings.edits.chat_template
    generator = random.Random(settings.training.seed)
    found: list[Wording] = []
    for edit in edits:
        texts = _other_templates(edit, wordings, generator)
        texts += [text for text in reworded.get(edit.prompt, ()) if text not in texts]
        texts = [text for text in texts if text not in taken and held.twin(text) is None][: asked.wordings]
        texts += _framed(edit, min(FRAMED, asked.wordings - len(texts)), taken, held, generator)
        starts = [generator.choice(prefixes) for _ in range(asked.prefixes)] if prefixes else []
        texts += [text for start in starts for text in [join(start, edit.prompt)] if held.twin(text) is None]
        found += [Wording(edit.prompt, text, edit.target, chat) for text in texts]
        if asked.both_forms and has_chat:
            found.append(Wording(edit.prompt, edit.prompt, edit.target, not chat))
    generator.shuffle(found)
    return found


def _framed(
    edit: EditRequest, count: int, taken: Collection[str], held: HeldOut, generator: random.Random
) -> list[str]:
    """So many of FRAMES around the edit's prompt, in random order."""
    if count <= 0:
        return []
    texts = [frame.replace(BLANK, edit.prompt) for frame in generator.sample(FRAMES, len(FRAMES))]
    return [text for text in texts if text not in taken and held.twin(text) is None][:count]


def _other_templates(edit: EditRequest, wordings: TemplateGroups, generator: random.Random) -> list[str]:
    """The edit's question in the other wordings of its group, in random order."""
    group, subject = wordings.of(edit), edit.subject
    if group is None or subject is None:
        return []
    texts = [fill_template(template, subject) for template in wordings.groups[group] if template != template_of(edit)]
    return generator.sample(texts, len(texts))
