"""Batches cut from kept activations, against plain indexing."""

import numpy
import torch
from hypothesis import given
from hypothesis import strategies as st

from factpatch.frozen_trunk.activations import Activations

CPU = torch.device("cpu")
LENGTHS = st.lists(st.integers(1, 6), min_size=1, max_size=8)


def make(shard_lengths):
    """Activations of two sites in several shards, and each row's own tensors."""
    rows, shards, shard_R, start_R, length_R = [], [], [], [], []
    count = 0.0
    for number, lengths in enumerate(shard_lengths):
        total = sum(lengths)
        flat = torch.arange(count, count + total)
        count += total
        shards.append({"block": flat[:, None] * torch.tensor([1.0, 2.0, 3.0]), "entry": -flat[:, None]})
        start = 0
        for length in lengths:
            rows.append({site: tensor[start : start + length] for site, tensor in shards[-1].items()})
            shard_R, start_R, length_R = [*shard_R, number], [*start_R, start], [*length_R, length]
            start += length
    return Activations(shards, *(numpy.array(column) for column in (shard_R, start_R, length_R))), rows


@given(st.lists(LENGTHS, min_size=1, max_size=3), st.data())
def test_gathering_is_plain_indexing(shard_lengths, data):
    kept, rows = make(shard_lengths)
    assert len(kept) == len(rows)
    chosen = data.draw(st.lists(st.integers(0, len(rows) - 1), min_size=1, max_size=12))
    part = kept.select(chosen)
    width = max(len(rows[index]["block"]) for index in chosen) + data.draw(st.integers(0, 2))
    packed, padded = part.packed(CPU), part.padded(width, CPU)
    for site, depth in (("block", 3), ("entry", 1)):
        assert torch.equal(packed[site], torch.cat([rows[index][site] for index in chosen])[None])
        wanted = torch.zeros(len(chosen), width, depth)
        for place, index in enumerate(chosen):
            wanted[place, width - len(rows[index][site]) :] = rows[index][site]
        assert torch.equal(padded[site], wanted)


@given(LENGTHS)
def test_rows_of_one_shard_lie_one_after_the_other(lengths):
    made, rows = make([lengths])
    kept = Activations.of_shard(made.shards[0], lengths)
    assert kept.bytes == sum(lengths) * 4 * 4
    for index, row in enumerate(rows):
        assert torch.equal(kept.select([index]).packed(CPU)["block"][0], row["block"])
