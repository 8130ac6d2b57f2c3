"""Further wordings of the edits, for training alone: other templates, unrelated prefixes, the other form."""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping, Sequence

import torch
from transformers import GenerationConfig

from factpatch.edits.request import EditRequest, Wording
from factpatch.models.encoding import padding_id
from factpatch.models.loading import LoadedModel
from factpatch.settings.config import Settings
from factpatch.text.blanks import join
from factpatch.training_data.leakage import HeldOut
from factpatch.training_data.templates import TemplateGroups, fill_template, template_of

PREFIX_TOKENS, LEAST_TOKENS = 16, 4  # at most and at least, of a prefix that the model makes up


def augment(
    edits: Sequence[EditRequest],
    wordings: TemplateGroups,
    reworded: Mapping[str, Sequence[str]],
    prefixes: Sequence[str],
    settings: Settings,
    held: HeldOut,
    taken: Collection[str],
) -> list[Wording]:
    """The further wordings of all edits, shuffled by seed; none is held out or nearly so, or `taken` by an edit's own
    prompt. Templates come before what the model made itself (`reworded`, by prompt)."""
    asked, chat = settings.training.augmentation, settings.edits.chat_template
    generator = random.Random(settings.training.seed)
    found: list[Wording] = []
    for edit in edits:
        texts = _other_templates(edit, wordings, generator)
        texts += [text for text in reworded.get(edit.prompt, ()) if text not in texts]
        texts = [text for text in texts if text not in taken and held.twin(text) is None][: asked.wordings]
        starts = [generator.choice(prefixes) for _ in range(asked.prefixes)] if prefixes else []
        texts += [text for start in starts for text in [join(start, edit.prompt)] if held.twin(text) is None]
        found += [Wording(edit.prompt, text, edit.target, chat) for text in texts]
        if asked.both_forms:
            found.append(Wording(edit.prompt, edit.prompt, edit.target, not chat))
    generator.shuffle(found)
    return found


def _other_templates(edit: EditRequest, wordings: TemplateGroups, generator: random.Random) -> list[str]:
    """The edit's question in the other wordings of its group, in random order."""
    group, subject = wordings.of(edit), edit.subject
    if group is None or subject is None:
        return []
    texts = [fill_template(template, subject) for template in wordings.groups[group] if template != template_of(edit)]
    return generator.sample(texts, len(texts))


def sample_ids(
    loaded: LoadedModel, count: int, seed: int, start: Sequence[int], tokens: int = PREFIX_TOKENS
) -> list[tuple[int, ...]]:
    """Short texts drawn from the model's own distribution after the tokens `start`: what was drawn, token by token,
    each but once."""
    model, end = loaded.model, loaded.tokenizer.eos_token_id
    start_BT = torch.tensor([list(start)] * count, device=model.device)
    config = GenerationConfig(
        do_sample=True,
        top_k=0,
        min_new_tokens=LEAST_TOKENS,
        max_new_tokens=tokens,
        eos_token_id=end,
        pad_token_id=padding_id(loaded.tokenizer),
    )
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(seed)
        drawn = model.generate(start_BT, attention_mask=torch.ones_like(start_BT), generation_config=config)  # type: ignore[operator]
    rows = (row[: row.index(end) + 1] if end in row else row for row in drawn[:, len(start) :].tolist())
    return list(dict.fromkeys(map(tuple, rows)))


def sample_texts(loaded: LoadedModel, count: int, seed: int) -> list[str]:
    """Texts drawn from the model's own distribution, each on one line, without blank ones."""
    drawn = sample_ids(loaded, count, seed, (loaded.tokenizer.eos_token_id,))
    texts = [plain_text(loaded, ids) for ids in drawn]
    return list(dict.fromkeys(text for text in texts if text))


def plain_text(loaded: LoadedModel, ids: Sequence[int]) -> str:
    """The text of ids, without special tokens, blanks single."""
    return " ".join(str(loaded.tokenizer.decode(list(ids), skip_special_tokens=True)).split())
