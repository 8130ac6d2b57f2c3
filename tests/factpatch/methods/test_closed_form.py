"""The closed-form solves of UltraEdit, MEMIT and AlphaEdit, against small cases worked out apart in numpy."""

import numpy
import pytest
import torch

from factpatch.errors import InputError
from factpatch.methods.alphaedit.solve import AlphaEditSolver, alphaedit_change, null_space
from factpatch.methods.memit.solve import MemitSolver, memit_change
from factpatch.methods.ultraedit.editing import LifelongNormalizer, ridge_change

KEYS_IN = [[1.0, 0.0], [2.0, 1.0], [0.0, -1.0]]  # two edits, keys of three numbers
RESIDUALS_ON = [[0.5, -1.0], [2.0, 0.25]]
PRIOR_II = [[4.0, 1.0, 0.0], [1.0, 3.0, 0.5], [0.0, 0.5, 2.0]]


def double(values):
    return torch.tensor(values, dtype=torch.float64)


def same(found, wanted):
    numpy.testing.assert_allclose(found.numpy(), wanted, rtol=1e-10, atol=1e-12)


def test_memit_by_hand():
    """One edit, key (1, 2), residual 3, C = I: R K^T (I + K K^T)^-1 is 3 (1, 2) / (1 + 5)."""
    same(memit_change(double([[1.0], [2.0]]), double([[3.0]]), torch.eye(2, dtype=torch.float64)), [[0.5, 1.0]])


def test_memit_s_change_is_the_minimum_of_its_least_squares():
    keys, residuals, prior = map(numpy.array, (KEYS_IN, RESIDUALS_ON, PRIOR_II))
    wanted = residuals @ keys.T @ numpy.linalg.inv(prior + keys @ keys.T)
    same(memit_change(double(KEYS_IN), double(RESIDUALS_ON), double(PRIOR_II)), wanted)
    solver = MemitSolver([double(PRIOR_II)], weight=2.0)
    solver.learn([double(KEYS_IN)])
    wanted = residuals @ keys.T @ numpy.linalg.inv(2 * prior + keys @ keys.T)
    same(solver.change(0, double(KEYS_IN), double(RESIDUALS_ON)), wanted)


def test_the_null_space_is_what_lies_far_below_the_mean_eigenvalue():
    """Eigenvalues 6, 0.03 and 0: their mean is 2.01, so the second is below 0.02 of it and not below 0.01."""
    turn = numpy.linalg.qr(numpy.array([[1.0, 2.0, 0.0], [0.0, 1.0, 1.0], [1.0, 0.0, 3.0]]))[0]
    moment = turn @ numpy.diag([6.0, 0.03, 0.0]) @ turn.T
    for threshold, unused in ((0.02, turn[:, 1:]), (0.01, turn[:, 2:])):
        same(null_space(torch.from_numpy(moment), threshold), unused @ unused.T)
        same(null_space(torch.from_numpy(1e-6 * moment), threshold), unused @ unused.T)


def test_where_general_text_uses_every_direction_the_threshold_is_to_be_raised():
    with pytest.raises(
        InputError, match=r"none is below .*nullspace_threshold \(0\.02\), the least being 0\.4; raise it"
    ):
        null_space(double([[4.0, 0.0], [0.0, 1.0]]), 0.02)


def test_alphaedit_by_hand():
    """P keeps the second direction alone: of key (1, 2) it is 2, so the change there is 3 * 2 / (4 + 2) with l2 = 2;
    what an earlier chunk asked of that direction counts as more of the same."""
    null_II, seen_II = double([[0.0, 0.0], [0.0, 1.0]]), torch.zeros(2, 2, dtype=torch.float64)
    key_IN, residual_ON = double([[1.0], [2.0]]), double([[3.0]])
    same(alphaedit_change(key_IN, residual_ON, null_II, seen_II, 2.0), [[0.0, 1.0]])
    seen_II[1, 1] = 6.0
    same(alphaedit_change(key_IN, residual_ON, null_II, seen_II, 2.0), [[0.0, 0.5]])


def test_alphaedit_stays_in_the_null_space_and_remembers_earlier_chunks():
    moment = numpy.diag([5.0, 0.0, 0.0])
    null, keys, residuals = numpy.diag([0.0, 1.0, 1.0]), numpy.array(KEYS_IN), numpy.array(RESIDUALS_ON)
    solver = AlphaEditSolver([torch.from_numpy(moment)], threshold=0.02, l2=0.5)
    for seen in (numpy.zeros((3, 3)), keys @ keys.T):
        inverse = numpy.linalg.inv((keys @ keys.T + seen) @ null + 0.5 * numpy.eye(3))
        change = solver.change(0, double(KEYS_IN), double(RESIDUALS_ON))
        same(change, residuals @ keys.T @ null @ inverse)
        same(change @ double([[1.0], [0.0], [0.0]]), numpy.zeros((2, 1)))  # what general text uses does not move
        solver.learn([double(KEYS_IN)])


def test_lifelong_statistics_are_those_of_all_tokens_however_they_came():
    features = torch.randn(9, 4, generator=torch.Generator().manual_seed(0))
    normalizer = LifelongNormalizer(4)
    for part in features.split([1, 5, 1, 2]):
        normalizer.update(part)
        assert torch.isfinite(normalizer(part)).all()  # of one token too
    values = features.double().numpy()
    wanted = (values - values.mean(0)) / values.std(0, ddof=1)
    numpy.testing.assert_allclose(normalizer(features).numpy(), wanted, rtol=1e-4, atol=1e-5)


def test_ultraedit_by_hand():
    """Hidden states (1, 0) and (0, 1) with gradients 2 and -2: normalised, each number is half the root of two, so
    |h'|^2 is 1 and g' half the root of two too; h h' + I is 2 I, and the change is -lr g' / 2."""
    features = torch.eye(2), torch.tensor([[2.0], [-2.0]])
    normalizer = LifelongNormalizer(3)
    normalizer.update(torch.cat(features, -1))
    wanted = 0.1 * 0.5**0.5 / 2 * numpy.array([[-1.0, 1.0]])
    numpy.testing.assert_allclose(ridge_change(features, normalizer, lr=0.1).numpy(), wanted, rtol=1e-5)


@pytest.mark.parametrize("tokens", [3, 7])
def test_ultraedit_s_change_is_a_ridge_regression(tokens):
    generator = torch.Generator().manual_seed(tokens)
    features = torch.randn(tokens, 4, generator=generator), torch.randn(tokens, 2, generator=generator)
    normalizer = LifelongNormalizer(6)
    normalizer.update(torch.cat(features, -1))
    hidden, both = features[0].double().numpy(), torch.cat(features, -1).double().numpy()
    normal = (both - both.mean(0)) / both.std(0, ddof=1)
    wanted = -0.3 * (normal[:, :4] ** 2).sum(1, keepdims=True) * normal[:, 4:]
    change = numpy.linalg.solve(hidden.T @ hidden + numpy.eye(4), hidden.T @ wanted).T
    numpy.testing.assert_allclose(ridge_change(features, normalizer, lr=0.3).numpy(), change, rtol=1e-3, atol=1e-4)
