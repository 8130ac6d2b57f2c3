"""What a layer's MLP is asked at the subject's last token (keys), and what the layers have answered there so far.

Shape suffixes: N edits, B rows, I width that a projection reads, W the model's width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from factpatch.errors import InputError
from factpatch.methods.base import EditJob
from factpatch.methods.locate_then_edit.contexts import Contexts
from factpatch.methods.projections import read_up_to
from factpatch.methods.reading_moments import reading_moments
from factpatch.models.batches import in_batches
from factpatch.models.encoding import Encoded, padding_id
from factpatch.models.forward import collate
from factpatch.models.linear import sizes
from factpatch.models.loading import LoadedModel

ROWS_AT_ONCE = 64  # of a pass without gradients


def key_moments(job: EditJob, projections: Sequence[nn.Module]) -> list[torch.Tensor]:
    """For each projection the mean of k k^T in double precision, over the tokens of the model's own texts.

    InputError where fewer tokens are asked for than a key has dimensions, so that some would seem to be unused.
    """
    settings = job.training
    for projection in projections:
        width, _ = sizes(projection)
        if settings.statistics_tokens < width:
            raise InputError(
                f"training.options.statistics_tokens is {settings.statistics_tokens}, and keys at "
                f"'{job.location.name}' have {width} dimensions; set it to several times as many"
            )
    weights = job.location.parameters
    found = reading_moments(job.loaded, weights, job.trunk, settings.statistics_tokens, settings.seed)
    return [found[name] for name in weights]


def keys_and_values(
    loaded: LoadedModel, projections: Sequence[nn.Module], block: nn.Module, edits: Sequence[Contexts]
) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Each projection's keys (N, I) in double precision, a half of the prompt alone and a half of the mean behind the
    prefixes; and what the block returns (N, W) for the prompt alone."""
    rows = [row for edit in edits for row in edit.keys]

    def ask(part: Sequence[Encoded]) -> tuple[list[torch.Tensor], torch.Tensor]:
        batch = collate(part, padding_id(loaded.tokenizer), loaded.model.device)
        read, returned = read_up_to(loaded, projections, block, batch)
        return [each[:, -1].double() for each in read], returned[:, -1].float()

    parts = [found for _, found in in_batches(ask, rows, ROWS_AT_ONCE)]
    keys = []
    for number in range(len(projections)):
        key_NCI = torch.cat([read[number] for read, _ in parts]).unflatten(0, (len(edits), -1))
        alone_NI, behind_NCI = key_NCI[:, 0], key_NCI[:, 1:]
        keys.append((alone_NI + behind_NCI.mean(1)) / 2 if behind_NCI.shape[1] else alone_NI)
    return keys, torch.cat([returned for _, returned in parts]).unflatten(0, (len(edits), -1))[:, 0]
