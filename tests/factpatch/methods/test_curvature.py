"""Projection out of directions of high curvature: exact by hand, and its statistics against a plain gradient."""

import numpy
import pytest
import torch

from factpatch.errors import InputError, RefusedError
from factpatch.methods import curvature_statistics
from factpatch.methods.crispedit.method import CrispEdit
from factpatch.methods.curvature import KroneckerFactors, held_directions, pooled, project
from factpatch.methods.curvature_statistics import curvature_of_own_text, curvature_of_rows
from factpatch.models.encoding import Encoded
from factpatch.models.forward import collate, predict_whole, token_losses
from factpatch.models.loading import load_model, preserved, tensor_digests
from factpatch.models.locations import Location, locate
from factpatch.settings.config import ModelSettings

WRITTEN = numpy.array([[1.0, 0.0], [1.0, 2.0], [0.0, -1.0]])  # gradients at what a 2 x 3 matrix writes
READ = numpy.array([[1.0, 1.0, 0.0], [0.0, 2.0, 1.0], [3.0, 0.0, 0.0], [1.0, 0.0, -1.0]])
GRADIENT = numpy.array([[1.0, -2.0, 3.0], [0.5, 4.0, -1.0]])
FACTORS = KroneckerFactors(
    torch.tensor(WRITTEN.T @ WRITTEN / 3, dtype=torch.float32),
    torch.tensor(READ.T @ READ / 4, dtype=torch.float32),
    12,
)


@pytest.mark.parametrize(("share", "directions"), [(0.5, 1), (0.8, 2), (0.9, 3), (0.99, 5), (1.0, 6)])
def test_projection_is_that_of_the_dense_fisher_matrix(share, directions):
    """Each gradient written meets each vector read, so the Fisher matrix of all twelve pairs is a Kronecker product."""
    samples = numpy.array([numpy.outer(written, read).flatten() for written in WRITTEN for read in READ])
    values, vectors = numpy.linalg.eigh(samples.T @ samples / len(samples))
    held = vectors[:, numpy.argsort(values)[-directions:]]
    assert values[numpy.argsort(values)[-directions:]].sum() >= (share - 1e-6) * values.sum()
    assert values[numpy.argsort(values)[-directions + 1 :]].sum() < share * values.sum() or directions == 1
    wanted = GRADIENT.flatten() - held @ (held.T @ GRADIENT.flatten())
    found = project(torch.tensor(GRADIENT, dtype=torch.float32), held_directions(FACTORS, share))
    torch.testing.assert_close(found.flatten(), torch.tensor(wanted, dtype=torch.float32), rtol=1e-4, atol=1e-4)


def test_a_direction_of_high_curvature_does_not_move_and_one_of_low_curvature_is_free():
    held = held_directions(FACTORS, 0.5)
    highest = torch.outer(held.rows_RR[:, -1], held.columns_CC[:, -1])
    lowest = torch.outer(held.rows_RR[:, 0], held.columns_CC[:, 0])
    torch.testing.assert_close(project(3 * highest, held), torch.zeros(2, 3), atol=1e-5, rtol=0)
    torch.testing.assert_close(project(3 * highest + lowest, held), lowest, atol=1e-5, rtol=0)


def test_factors_are_pooled_token_by_token():
    one = KroneckerFactors(torch.eye(2), torch.eye(3), 1)
    found = pooled(one, KroneckerFactors(5 * torch.eye(2), 9 * torch.eye(3), 3))
    assert (found.rows_RR[0, 0], found.columns_CC[0, 0], found.tokens) == (4.0, 7.0, 4)


@pytest.mark.parametrize(("value", "words"), [(0.0, "no curvature"), (float("nan"), "not finite")])
def test_curvature_that_tells_nothing_is_refused(value, words):
    with pytest.raises(RefusedError, match=words):
        held_directions(KroneckerFactors(torch.full((2, 2), value), torch.eye(3), 1), 0.9)


def test_factors_of_one_position_are_those_of_its_gradient(tiny_model, kind):
    """With one position the gradient is g hT, and so G GT = g gT |h|^2; two rows are averaged."""
    loaded = load_model(ModelSettings(path=str(tiny_model(kind))))
    before = tensor_digests(loaded.model)
    location = locate(loaded.model, "1-2:mlp")
    rows = [Encoded((5, 6), 1), Encoded((9, 7), 1)]
    each = [curvature_of_rows(loaded, location, [row]) for row in rows]
    both = curvature_of_rows(loaded, location, rows)
    for row, found in zip(rows, each, strict=True):
        with preserved(loaded.model, location.parameters):
            located = [loaded.model.get_parameter(name).requires_grad_(True) for name in location.parameters]
            loss = token_losses(predict_whole(loaded.model, collate([row], 0))).sum()
            gradients = torch.autograd.grad(loss, located)
        for name, gradient in zip(location.parameters, gradients, strict=True):
            own = found[name]
            read_size, size = own.columns_CC.trace(), (own.rows_RR * own.columns_CC.trace()).abs().max()
            near = {"rtol": 1e-3, "atol": 1e-5 * float(size)}
            torch.testing.assert_close(own.rows_RR * read_size, gradient @ gradient.T, **near)
            torch.testing.assert_close(own.columns_CC * own.rows_RR.trace(), gradient.T @ gradient, **near)
    for name, found in both.items():
        wanted = pooled(each[0][name], each[1][name])
        torch.testing.assert_close(found.rows_RR, wanted.rows_RR, rtol=1e-3, atol=1e-5)
        torch.testing.assert_close(found.columns_CC, wanted.columns_CC, rtol=1e-3, atol=1e-5)
    assert both[location.parameters[0]].tokens == 2
    assert tensor_digests(loaded.model) == before
    assert not any(parameter.requires_grad for parameter in loaded.model.parameters())


def test_curvature_of_the_own_text_is_kept_and_made_anew_where_its_file_is_damaged(tiny_model, tmp_path, monkeypatch):
    loaded = load_model(ModelSettings(path=str(tiny_model("llama"))))
    location = locate(loaded.model, "2:down")
    (name,) = location.parameters
    monkeypatch.setattr(curvature_statistics, "TEXTS", 8)
    found = curvature_of_own_text(loaded, location, str(tmp_path))[name]
    drawn = []
    monkeypatch.setattr(curvature_statistics, "sample_ids", lambda *given: drawn.append(given) or [(5, 6, 7)])
    again = curvature_of_own_text(loaded, location, str(tmp_path))[name]
    assert (torch.equal(found.rows_RR, again.rows_RR), torch.equal(found.columns_CC, again.columns_CC)) == (True, True)
    assert (found.tokens, drawn) == (again.tokens, [])
    (file,) = tmp_path.glob("*/curvature.safetensors")
    content = file.read_bytes()
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert curvature_of_own_text(loaded, location, str(tmp_path))[name].tokens == 3
    assert len(drawn) == 1


def test_what_is_no_projection_is_refused(tiny_model):
    model = load_model(ModelSettings(path=str(tiny_model("llama")))).model
    CrispEdit().refuse(model, locate(model, "0-3:"))
    with pytest.raises(InputError, match=r"model\.embed_tokens\.weight is none"):
        CrispEdit().refuse(model, Location(0, "", ("model.embed_tokens.weight",)))
