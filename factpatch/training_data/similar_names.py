"""Names like an edit's subject: France is like Germany and Italy, a painter like other painters.

A model's own hidden states tell names of one sort from others: of a list of well-known names those are taken whose
state, halfway up, points where the subject's does. So the rows of two columns bring the neighbours that must not move,
whatever they are about and however few they are.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from factpatch.evaluation.answer_cache import AnswerCache
from factpatch.files import digest_value
from factpatch.models.batches import in_batches
from factpatch.models.encoding import padding_id
from factpatch.models.forward import hidden_before
from factpatch.models.loading import LoadedModel
from factpatch.models.locations import decoder_blocks
from factpatch.text.known_names import known_names

CONTEXT = "The subject is"  # stands before each name, so that a single word is read as one
NAMES_AT_ONCE = 64  # of a forward pass
FOUND = 96  # names that are found for a subject, the most alike first


def similar_names(loaded: LoadedModel, subjects: Sequence[str], cache: AnswerCache) -> list[list[str]]:
    """For each subject the well-known names most like it, the closest first; the subject itself is not among them.
    Where it is well known too, those of its kind come before all others."""

    def find(places: list[int]) -> list[list[str]]:
        kinds = known_names()
        names, folded = list(kinds), {name.casefold(): kind for name, kind in kinds.items()}
        states = _states(loaded, [*names, *(subjects[place] for place in places)])
        mean, spread = states[: len(names)].mean(0), states[: len(names)].std(0) + 1e-6
        directions = torch.nn.functional.normalize((states - mean) / spread, dim=-1)
        nearness = directions[len(names) :] @ directions[: len(names)].T
        for row, place in zip(nearness, places, strict=True):
            own = folded.get(subjects[place].casefold())
            row += torch.tensor([2.0 * (kind == own) for kind in kinds.values()])  # more than cosines differ by
        ranked = nearness.topk(min(FOUND + 1, len(names)), dim=-1).indices.tolist()
        return [
            [names[index] for index in row if names[index].casefold() != subjects[place].casefold()][:FOUND]
            for place, row in zip(places, ranked, strict=True)
        ]

    return cache.recall("alike", list(subjects), find)


def is_for_measuring(name: str, seed: int) -> bool:
    """Is a name one that locality probes ask about? Half of all are, by seed; the other half is trained about, in
    every release alike."""
    return int(digest_value([seed, name])[:8], 16) % 2 == 0


def _states(loaded: LoadedModel, names: Sequence[str]) -> torch.Tensor:
    """The hidden state at the last token of each name, halfway up the model: shape (names, width)."""
    rows = [tuple(ids) for ids in loaded.tokenizer([f"{CONTEXT} {name}" for name in names]).input_ids]
    found: dict[int, torch.Tensor] = {}
    halfway = (len(decoder_blocks(loaded.model)[1]) + 1) // 2

    def look(chosen: Sequence[int]) -> list[torch.Tensor]:
        width = max(len(rows[index]) for index in chosen)
        pad, device = padding_id(loaded.tokenizer), loaded.model.device
        ids_BT = torch.tensor([rows[index] + (pad,) * (width - len(rows[index])) for index in chosen], device=device)
        ends_B = torch.tensor([len(rows[index]) - 1 for index in chosen], device=device)
        mask_BT = torch.arange(width, device=device) <= ends_B[:, None]
        states_BTW = hidden_before(loaded.model, halfway, ids_BT, mask_BT.long())
        return list(states_BTW[torch.arange(len(chosen), device=device), ends_B].float().cpu())

    order = sorted(range(len(rows)), key=lambda index: len(rows[index]))
    for chosen, states in in_batches(look, order, NAMES_AT_ONCE, loaded.model):
        found.update(zip(chosen, states, strict=True))
    return torch.stack([found[index] for index in range(len(rows))])
