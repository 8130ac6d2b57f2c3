"""Target values: the hidden state at the subject's last token that makes the model say the edit's target.

Found by gradient descent on a change of the state, as in MEMIT (arXiv 2210.07229), of several edits in one pass.

Shape suffixes: N edits of a pass, B rows, T tokens, P positions that predict, V vocabulary, W width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn

from factpatch.errors import RefusedError
from factpatch.methods.locate_then_edit.contexts import Contexts
from factpatch.methods.locate_then_edit.keys import hidden_of
from factpatch.methods.locate_then_edit.settings import ValueSettings
from factpatch.models.encoding import padding_id
from factpatch.models.forward import collate, edit_losses, flatten, target_logits, token_losses
from factpatch.models.loading import LoadedModel

ENOUGH = 0.05  # loss below which an edit's value is taken as it is


@dataclass(frozen=True)
class TargetValues:
    """Values (N, W), the last loss of each, and how many steps and rows they took."""

    value_NW: torch.Tensor
    losses: tuple[float, ...]
    steps: int
    visits: int


def find_target_values(
    loaded: LoadedModel, block: nn.Module, edits: Sequence[Contexts], settings: ValueSettings
) -> TargetValues:
    """The state that the block should return at each edit's subject.

    The loss of an edit is that of its target, mean over its contexts; the divergence of what follows the subject alone
    from what followed before; and the size of the change, which never exceeds a share of the state's norm.
    """
    width = loaded.model.config.get_text_config().hidden_size
    changes = [torch.zeros(width, device=loaded.model.device, requires_grad=True) for _ in edits]
    adam = torch.optim.Adam(changes, lr=settings.v_lr)
    losses = [0.0] * len(edits)
    first: _Pass | None = None
    live, visits = list(range(len(edits))), 0
    for step in range(settings.v_num_grad_steps):
        with torch.enable_grad():
            change_NW = torch.stack([changes[number] for number in live])
            found = _look(loaded, block, [edits[number] for number in live], change_NW)
            first = first or found.detached()
            size_N = first.state_NW[live].norm(dim=-1)
            drift_N = (found.after_NV.exp() * (found.after_NV - first.after_NV[live])).sum(-1)
            shrink_N = change_NW.norm(dim=-1) / size_N**2
            loss_N = found.loss_N + settings.kl_factor * drift_N + settings.v_weight_decay * shrink_N
        visits += len(live) * (len(edits[0].rows) + 1)
        told = loss_N.tolist()
        if not torch.isfinite(loss_N).all():
            raise RefusedError("the loss of a target value is not finite; lower training.options.v_lr and run again")
        losses = [dict(zip(live, told, strict=True)).get(number, loss) for number, loss in enumerate(losses)]
        going = [place for place, loss in enumerate(told) if loss >= ENOUGH]
        if not going or step == settings.v_num_grad_steps - 1:
            break
        slopes = torch.autograd.grad(loss_N[going].sum(), change_NW)[0]
        adam.zero_grad()
        for place in going:
            changes[live[place]].grad = slopes[place]
        adam.step()
        live = [live[place] for place in going]
        _clamp([changes[number] for number in live], settings.clamp_norm_factor * first.state_NW[live].norm(dim=-1))
    assert first is not None
    return TargetValues(first.state_NW + torch.stack(changes).detach(), tuple(losses), step + 1, visits)


@dataclass(frozen=True)
class _Pass:
    """Of each edit: the mean loss of its target over the contexts (N), log-probabilities after the subject alone
    (N, V), and the state at the subject in the prompt alone before the change (N, W)."""

    loss_N: torch.Tensor
    after_NV: torch.Tensor
    state_NW: torch.Tensor

    def detached(self) -> _Pass:
        """The same without what gradients need."""
        return _Pass(self.loss_N.detach(), self.after_NV.detach(), self.state_NW.detach())


def _look(loaded: LoadedModel, block: nn.Module, edits: Sequence[Contexts], change_NW: torch.Tensor) -> _Pass:
    """A pass over all contexts of the edits and their subjects alone, with the changes at the subjects' last tokens."""
    contexts = [row for edit in edits for row in edit.rows]
    alone = [edit.subject for edit in edits]
    places = [place for edit in edits for place in edit.lookups] + [row.prompt_length - 1 for row in alone]
    each = len(edits[0].rows)
    owners = [number for number in range(len(edits)) for _ in range(each)] + list(range(len(edits)))
    rows = contexts + alone
    batch = collate(rows, padding_id(loaded.tokenizer), loaded.model.device)
    columns = [batch.ids_BT.shape[1] - len(row.ids) + place for row, place in zip(rows, places, strict=True)]
    with _changed(block, columns, change_NW[owners]) as states:
        logits_BKV = target_logits(loaded.model, batch)
    after_NV = logits_BKV[len(contexts) :, -1].float().log_softmax(-1)
    predictions = flatten(logits_BKV, batch)
    loss_B = edit_losses(predictions, token_losses(predictions))
    state_BW = states[0]
    return _Pass(loss_B[: len(contexts)].unflatten(0, (-1, each)).mean(1), after_NV, state_BW[: len(contexts) : each])


@contextmanager
def _changed(block: nn.Module, columns: Sequence[int], change_BW: torch.Tensor) -> Iterator[list[torch.Tensor]]:
    """Meanwhile the block's states at one column of each row are changed; what they were (B, W) is kept."""
    states: list[torch.Tensor] = []

    def change(module: nn.Module, inputs: object, output: torch.Tensor | tuple[torch.Tensor, ...]) -> object:
        hidden_BTW = hidden_of(output)
        at = torch.arange(len(columns), device=hidden_BTW.device), torch.tensor(columns, device=hidden_BTW.device)
        states.append(hidden_BTW[at].detach().float())
        added_BTW = torch.zeros_like(hidden_BTW).index_put(at, change_BW.to(hidden_BTW.dtype))
        changed_BTW = hidden_BTW + added_BTW
        return (changed_BTW, *output[1:]) if isinstance(output, tuple) else changed_BTW

    hook = block.register_forward_hook(change)
    try:
        yield states
    finally:
        hook.remove()


def _clamp(changes: Sequence[torch.Tensor], largest_N: torch.Tensor) -> None:
    """Bring changes that grew too large back to the largest norm."""
    with torch.no_grad():
        for change, largest in zip(changes, largest_N, strict=True):
            change.mul_(torch.clamp(largest / change.norm(), max=1.0))
