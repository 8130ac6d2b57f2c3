"""Second moments of the keys that general text asks for, from texts that the model itself makes up.

They are kept on disk beside the trunk's activations, by digest of the model and of how the texts are drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from factpatch.disk_cache import evict, read_cached
from factpatch.errors import InputError, RefusedError
from factpatch.files import digest_value, new_file, output_folder
from factpatch.frozen_trunk.store import GIB
from factpatch.methods.base import EditJob
from factpatch.methods.locate_then_edit.keys import read_up_to
from factpatch.methods.projections import sizes
from factpatch.models.batches import in_batches
from factpatch.models.encoding import Encoded, padding_id
from factpatch.models.forward import collate
from factpatch.models.loading import LoadedModel, fingerprint, known_digests
from factpatch.models.sampling import sample_ids

STATISTICS_VERSION = 1  # of the files; another number never reads these
TEXTS, TEXT_TOKENS = 64, 64  # drawn at once, and of each at most
DRAWS = 1000  # at most: a model that only ever says a word or two gives too few tokens
ROWS_AT_ONCE = 16


def key_moments(job: EditJob, projections: Sequence[nn.Module], block: nn.Module) -> list[torch.Tensor]:
    """For each projection the mean of k k^T in double precision, over the tokens of the model's own texts.

    InputError where there are fewer tokens than a key has dimensions, so that some would seem to be unused.
    """
    settings, loaded = job.training, job.loaded
    for projection in projections:
        width, _ = sizes(projection)
        if settings.statistics_tokens < width:
            raise InputError(
                f"training.options.statistics_tokens is {settings.statistics_tokens}, and keys at "
                f"'{job.location.name}' have {width} dimensions; set it to several times as many"
            )
    if job.trunk.folder is None:
        return _moments(loaded, projections, block, settings.statistics_tokens, settings.seed)
    base = fingerprint(known_digests(loaded.model))
    parts = [STATISTICS_VERSION, base, str(loaded.model.dtype), job.location.name]
    parts += [settings.statistics_tokens, settings.seed, TEXTS, TEXT_TOKENS]
    path = output_folder(Path(job.trunk.folder) / f"keys-{digest_value(parts)[:32]}") / "moments.safetensors"
    kept = read_cached(path, load_file)
    if kept is None:
        moments = _moments(loaded, projections, block, settings.statistics_tokens, settings.seed)
        kept = dict(zip(job.location.parameters, moments, strict=True))
        with new_file(path) as temporary:
            save_file(kept, temporary)
    path.parent.touch()
    evict(filter(Path.is_dir, path.parents[1].iterdir()), path.parent, job.trunk.disk_gb * GIB)
    return [kept[name].to(loaded.model.device) for name in job.location.parameters]


def _moments(
    loaded: LoadedModel, projections: Sequence[nn.Module], block: nn.Module, tokens: int, seed: int
) -> list[torch.Tensor]:
    widths, device = [sizes(projection)[0] for projection in projections], loaded.model.device
    sums = [torch.zeros(width, width, dtype=torch.float64, device=device) for width in widths]

    def ask(part: Sequence[Encoded]) -> list[torch.Tensor]:
        batch = collate(part, padding_id(loaded.tokenizer), loaded.model.device)
        read, _ = read_up_to(loaded, projections, block, batch)
        real_BT = batch.attention_BT[:, :-1].bool()
        return [each[real_BT].double() for each in read]

    texts = _own_texts(loaded, tokens, seed)
    for _, keys in in_batches(ask, texts, ROWS_AT_ONCE):
        for total, key_TI in zip(sums, keys, strict=True):
            total += key_TI.T @ key_TI
    count = sum(len(text.ids) - 1 for text in texts)
    moments = [total / count for total in sums]
    if not all(torch.isfinite(moment).all() for moment in moments):
        raise RefusedError("the base model's activations are not finite; check it")
    return moments


def _own_texts(loaded: LoadedModel, tokens: int, seed: int) -> list[Encoded]:
    """Texts of so many tokens together, from the model's own distribution after its end-of-text token."""
    end = loaded.tokenizer.eos_token_id
    texts: list[Encoded] = []
    count = 0
    for draw in range(DRAWS):
        for ids in sample_ids(loaded, TEXTS, seed + draw, (end,), TEXT_TOKENS):
            if count < tokens:
                texts.append(Encoded((end, *ids), 1))
                count += len(ids)
        if count >= tokens:
            return sorted(texts, key=lambda text: len(text.ids))
    raise RefusedError(f"the model makes up texts of a few tokens alone, not the {tokens} that statistics need")
