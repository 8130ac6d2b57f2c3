"""A plain loop: the whole model forward and backward in every step, all logits, padded batches, the paper's recipe.

Written from the paper (arXiv 2509.22072) and apart from the engine, to compare with it.
"""

from __future__ import annotations

import copy

import torch
from torch.nn import functional


def plain_loop(model, rows, parameters, learning_rate, batch_size, epochs, seed):
    """Mean loss of every epoch, and the trained parameters by name. `rows` are (ids, prompt length); the model given is
    left alone."""
    model = copy.deepcopy(model)
    trained = {name: parameter for name, parameter in model.named_parameters() if name in parameters}
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in parameters)
    optimizer = torch.optim.Adam(trained.values(), lr=learning_rate)
    generator = torch.Generator().manual_seed(seed)
    losses = []
    for _ in range(epochs):
        torch.randperm(0, generator=generator)  # protected rows are drawn first, and there are none
        order = torch.randperm(len(rows), generator=generator).tolist()
        total = 0.0
        for start in range(0, len(order), batch_size):
            batch = [rows[index] for index in order[start : start + batch_size]]
            loss = mean_loss(model, batch)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item() * len(batch)
        losses.append(total / len(rows))
    return losses, {name: parameter.detach() for name, parameter in trained.items()}


def mean_loss(model, batch):
    """Each edit's mean over its target tokens, EOS included; then the mean over the batch. Padded on the right, where
    a causal model cannot look."""
    width = max(len(ids) for ids, _ in batch)
    inputs_BT = torch.tensor([[*ids, *[0] * (width - len(ids))] for ids, _ in batch])
    mask_BT = torch.tensor([[1] * len(ids) + [0] * (width - len(ids)) for ids, _ in batch])
    logits_BTV = model(input_ids=inputs_BT, attention_mask=mask_BT, use_cache=False).logits
    each = [
        functional.cross_entropy(logits_TV[prompt - 1 : len(ids) - 1], torch.tensor(ids[prompt:]))
        for logits_TV, (ids, prompt) in zip(logits_BTV, batch, strict=True)
    ]
    return torch.stack(each).mean()
