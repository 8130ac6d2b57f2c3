"""UltraEdit (arXiv 2505.14679): each matrix is changed so that hidden states h move against their gradients.

Shape suffixes: T tokens, I width that a projection reads, O width that it writes, F features: a hidden state and its
gradient, side by side.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import torch
from torch import nn

from factpatch.errors import InputError, RefusedError
from factpatch.methods.base import EditJob, TrainingResult
from factpatch.methods.master_weights import masters_of
from factpatch.methods.projections import as_stored, projections
from factpatch.methods.ultraedit.settings import ROWS_A_PASS
from factpatch.models.batches import in_batches
from factpatch.models.encoding import Encoded, padding_id
from factpatch.models.forward import collate, predict_whole, token_losses
from factpatch.models.linear import sizes
from factpatch.models.loading import LoadedModel

Features = tuple[torch.Tensor, torch.Tensor]  # hidden states (T, I) that a projection read, gradients (T, O)


class LifelongNormalizer:
    """Mean and standard deviation of all features seen so far, of matrices of one shape together.

    Sums of squares are added exactly, so that neither batches of one token nor their sizes make a difference.
    """

    def __init__(self, width: int) -> None:
        self.count = 0
        self.mean_F = torch.zeros(width)
        self._squares_F = torch.zeros(width)

    def update(self, feature_TF: torch.Tensor) -> None:
        """Take further features in."""
        new, total = len(feature_TF), self.count + len(feature_TF)
        gap_F = feature_TF.mean(0) - self.mean_F.to(feature_TF.device)
        own_F = (feature_TF - feature_TF.mean(0)).square().sum(0)
        self._squares_F = self._squares_F.to(own_F.device) + own_F + gap_F.square() * self.count * new / total
        self.mean_F = self.mean_F.to(own_F.device) + gap_F * new / total
        self.count = total

    def __call__(self, feature_TF: torch.Tensor) -> torch.Tensor:
        """The features, normalised."""
        deviation_F = (self._squares_F / max(1, self.count - 1)).sqrt()
        return (feature_TF - self.mean_F) / (deviation_F + torch.finfo(feature_TF.dtype).eps)


def ridge_change(features: Features, normalizer: LifelongNormalizer, lr: float) -> torch.Tensor:
    """The change (O, I) of a matrix: ridge regression from hidden states h to -lr |h'|^2 g', where h' and g' are a
    hidden state and its gradient, normalised."""
    hidden_TI, slope_TO = features
    both_TF = normalizer(torch.cat(features, -1)).double()
    normal_TI, turned_TO = both_TF.split([hidden_TI.shape[1], slope_TO.shape[1]], -1)
    wanted_TO = -lr * normal_TI.square().sum(-1, keepdim=True) * turned_TO
    keys_TI = hidden_TI.double()
    gram_II = keys_TI.T @ keys_TI + torch.eye(keys_TI.shape[1], dtype=torch.float64, device=keys_TI.device)
    return torch.linalg.solve(gram_II, keys_TI.T @ wanted_TO).T


def ultraedit(job: EditJob) -> TrainingResult:
    """Solve for the edits chunk by chunk, each on the model as changed so far; the model is left as found."""
    loaded, settings, rows = job.loaded, job.training, job.rows.edits
    modules = projections(loaded.model, job.location)
    normalizers = {sizes(module): LifelongNormalizer(sum(sizes(module))) for module in modules}
    losses: list[float] = []
    with masters_of(loaded.model, job.location) as masters:
        for start in range(0, len(rows), settings.chunk):
            chunk = rows[start : start + settings.chunk]
            found: list[list[Features]] = [[] for _ in modules]
            for _, (features, loss) in in_batches(lambda part: _features(loaded, modules, part), chunk, ROWS_A_PASS):
                losses.append(loss)
                for module, own, seen in zip(modules, features, found, strict=True):
                    normalizers[sizes(module)].update(torch.cat(own, -1))
                    seen.append(own)
            for module, master, seen in zip(modules, masters.tensors, found, strict=True):
                together = torch.cat([hidden for hidden, _ in seen]), torch.cat([slope for _, slope in seen])
                change = ridge_change(together, normalizers[sizes(module)], settings.lr)
                if not torch.isfinite(change).all():
                    raise RefusedError("a change is not finite; nothing was written. Lower training.options.lr")
                master += as_stored(module, change).to(master.dtype)
            masters.write_back()
            if job.progress:
                job.progress(start + len(chunk), len(rows), losses[-1])
        values = loaded.stored.rounded(masters.values())
    chunks = -(-len(rows) // settings.chunk)
    return TrainingResult(values, tuple(losses), chunks, len(rows), unsure=None, engine="whole")


def _features(
    loaded: LoadedModel, modules: Sequence[nn.Module], rows: Sequence[Encoded]
) -> tuple[list[Features], float]:
    """What each projection reads at every token of the rows, and the gradient of the mean loss of their target tokens
    at what it writes; and that loss."""
    batch = collate(rows, padding_id(loaded.tokenizer), loaded.model.device)
    real_BT = batch.attention_BT[:, :-1].bool()  # the last token predicts nothing
    with torch.enable_grad(), _watching(modules, real_BT.shape) as seen:
        predictions = predict_whole(loaded.model, batch)
        loss = token_losses(predictions).sum() / predictions.real_P.sum()
    value = loss.item()
    if not math.isfinite(value):
        raise RefusedError(f"the loss became {value}; nothing was written. Lower training.options.lr and run again")
    slopes = torch.autograd.grad(loss, [written for _, written in seen])
    return [
        (read[real_BT].float(), slope[real_BT].float()) for (read, _), slope in zip(seen, slopes, strict=True)
    ], value


@contextmanager
def _watching(modules: Sequence[nn.Module], shape: torch.Size) -> Iterator[list[Features]]:
    """What each of the modules reads and writes in the pass that is made meanwhile, once that is over."""
    seen: dict[nn.Module, Features] = {}

    def keep(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        if module in seen or output.shape[:-1] != shape:
            raise InputError("training method 'ultraedit' needs projections that read every token once; choose others")
        seen[module] = inputs[0].detach(), output

    found: list[Features] = []
    with ExitStack() as hooks:
        for module in modules:
            hooks.callback(module.register_forward_hook(keep).remove)
        yield found
    found += [seen[module] for module in modules]
