"""Second moments of what linear projections read while the model writes texts of its own.

They tell which directions general text uses. They are kept on disk beside the trunk's activations, by digest of the
model and of how the texts are drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from factpatch.disk_cache import evict, read_cached
from factpatch.errors import RefusedError
from factpatch.files import GIB, digest_value, new_file, output_folder
from factpatch.methods.projections import read_up_to
from factpatch.models.batches import in_batches
from factpatch.models.encoding import Encoded, padding_id
from factpatch.models.forward import collate
from factpatch.models.linear import owner_of, sizes
from factpatch.models.loading import LoadedModel, fingerprint, known_digests
from factpatch.models.locations import decoder_blocks
from factpatch.models.sampling import sample_ids
from factpatch.settings.config import TrunkSettings

MOMENTS_VERSION = 3  # of the files; another number never reads these
TEXTS, TEXT_TOKENS = 64, 64  # drawn at once at most, so that memory holds them, and of each at most
DRAWS = 1000  # at most: a model that only ever says a word or two gives too few tokens
ROWS_AT_ONCE = 16
MODELS_REMEMBERED = 4  # whose texts stay in memory

Moments = dict[str, torch.Tensor]  # (width read, width read) in double precision, by the name of the weight

_drawn: dict[str, list[Encoded]] = {}  # texts by digest of what they depend on, the latest last


def reading_moments(
    loaded: LoadedModel, weights: Sequence[str], trunk: TrunkSettings, tokens: int, seed: int = 0
) -> Moments:
    """For each projection, named by its weight, the mean of h h^T over the tokens of the model's own texts, h being
    what it reads there. Those that are not on disk are made in one pass."""
    if trunk.folder is None:
        return _moments(loaded, weights, tokens, seed)
    base = fingerprint(known_digests(loaded.model))
    parts = [MOMENTS_VERSION, base, str(loaded.model.dtype), tokens, seed, TEXTS, TEXT_TOKENS]
    folder = output_folder(Path(trunk.folder) / f"moments-{digest_value(parts)[:32]}")
    paths = {name: folder / f"{name}.safetensors" for name in weights}
    kept = {name: read_cached(path, lambda path: load_file(path)["moment"]) for name, path in paths.items()}
    found = {name: moment.to(loaded.model.device) for name, moment in kept.items() if moment is not None}
    missing = [name for name in weights if name not in found]
    folder.touch()  # what was used last is the last to make room
    if missing:
        made = _moments(loaded, missing, tokens, seed)
        for name, moment in made.items():
            with new_file(paths[name]) as temporary:
                save_file({"moment": moment.cpu()}, temporary)
        found |= made
        evict(filter(Path.is_dir, folder.parent.iterdir()), folder, trunk.disk_gb * GIB)
    return found


def _moments(loaded: LoadedModel, weights: Sequence[str], tokens: int, seed: int) -> Moments:
    model = loaded.model
    modules = [owner_of(model, name) for name in weights]
    stack, blocks = decoder_blocks(model)
    last = max(int(name.removeprefix(f"{stack}.").partition(".")[0]) for name in weights)
    widths = [sizes(module)[0] for module in modules]
    sums = [torch.zeros(width, width, dtype=torch.float64, device=model.device) for width in widths]

    def ask(part: Sequence[Encoded]) -> list[torch.Tensor]:
        batch = collate(part, padding_id(loaded.tokenizer), model.device)
        read, _ = read_up_to(loaded, modules, blocks[last], batch)
        real_BT = batch.attention_BT[:, :-1].bool()
        return [each[real_BT].double() for each in read]

    texts = _own_texts(loaded, tokens, seed)
    for _, found in in_batches(ask, texts, ROWS_AT_ONCE):
        for total, read_TI in zip(sums, found, strict=True):
            total += read_TI.T @ read_TI
    count = sum(len(text.ids) - 1 for text in texts)
    moments = {name: total / count for name, total in zip(weights, sums, strict=True)}
    if not all(torch.isfinite(moment).all() for moment in moments.values()):
        raise RefusedError("the base model's activations are not finite; check it")
    return moments


def _own_texts(loaded: LoadedModel, tokens: int, seed: int) -> list[Encoded]:
    """Texts of about so many tokens together. They stay in memory, as a search without a trunk folder asks for them at
    each place, and the edit once more."""
    model, end = loaded.model, loaded.tokenizer.eos_token_id
    base = fingerprint(known_digests(model))
    digest = digest_value([base, str(model.dtype), str(model.device), end, tokens, seed])
    if digest not in _drawn:
        texts = _draw_texts(loaded, tokens, seed)
        if len(_drawn) == MODELS_REMEMBERED:
            del _drawn[next(iter(_drawn))]
        _drawn[digest] = texts
    return _drawn[digest]


def _draw_texts(loaded: LoadedModel, tokens: int, seed: int) -> list[Encoded]:
    """From the model's own distribution after its end-of-text token: as many texts as would have so many tokens if none
    ended early, and again while there are fewer than half."""
    end, wanted = loaded.tokenizer.eos_token_id, -(-tokens // TEXT_TOKENS)
    texts: list[Encoded] = []
    for draw in range(DRAWS):
        drawn = sample_ids(loaded, [(end,)] * min(TEXTS, wanted), seed + draw, TEXT_TOKENS)
        texts += [Encoded((end, *ids), 1) for ids in drawn]
        if len(texts) >= wanted and sum(len(text.ids) - 1 for text in texts) >= tokens / 2:
            return sorted(texts, key=lambda text: len(text.ids))
    raise RefusedError(f"the model makes up texts of a few tokens alone, not the {tokens} that statistics need")
