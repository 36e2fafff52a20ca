"""Gauss-Newton matrices of students: both forms, by rows and by latents, against the matrices themselves."""

import pytest
import torch

from bayesdd.networks.students import GaussNewton


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize(("rows", "latents"), [(5, 8), (8, 5)])
def test_regression_and_leverages_are_those_of_the_matrix(rows, latents):
    slopes, values = drawn(2, rows, latents), drawn(2, rows, seed=1)
    precision, ridge = drawn(rows, seed=2).exp(), drawn(2, latents, seed=3).exp()
    model = GaussNewton(slopes, precision, ridge)
    inverse = torch.linalg.inv((slopes * precision[:, None]).mT @ slopes + torch.diag_embed(ridge))
    right = slopes.mT @ (precision * values)[..., None]
    torch.testing.assert_close(model.regression(values), (inverse @ right)[..., 0])
    torch.testing.assert_close(model.solve(right[..., 0]), (inverse @ right)[..., 0])
    left = values - (slopes @ inverse @ right)[..., 0]
    torch.testing.assert_close(model.unexplained(values[..., None])[..., 0], left)
    hat = precision * (slopes @ inverse @ slopes.mT).diagonal(dim1=1, dim2=2)
    torch.testing.assert_close(model.free(), 1 - hat)


def test_the_two_forms_agree_and_sharp_rows_are_met():
    """The same system once with rows of zeros, so that it is solved by latents; then rows of a precision of 1e12."""
    slopes, values = drawn(1, 6, 9), drawn(1, 6, seed=1)
    more = torch.cat([slopes, torch.zeros_like(slopes)], 1)
    dual, primal = (GaussNewton(some, torch.ones(some.shape[1]).double(), torch.ones(1, 9)) for some in (slopes, more))
    assert dual.dual and not primal.dual
    padded = torch.cat([values, torch.zeros_like(values)], 1)
    torch.testing.assert_close(dual.regression(values), primal.regression(padded))
    torch.testing.assert_close(dual.free(), primal.free()[:, :6])
    torch.testing.assert_close(dual.variance(slopes), primal.variance(slopes))
    step = GaussNewton(1e6 * slopes, torch.ones(6).double(), torch.ones(1, 9)).regression(1e6 * values)
    torch.testing.assert_close((slopes @ step[..., None])[..., 0], values, rtol=1e-9, atol=1e-9)


def test_nothing_is_lost_to_rounding_where_rows_are_sharp():
    """With slopes of 1e8 and a ridge of one, the regression solves the rows, and leaves J J' of them inversely."""
    slopes, values = drawn(1, 6, 9), drawn(1, 6, 2, seed=1)
    model = GaussNewton(1e8 * slopes, torch.ones(6).double(), torch.ones(1, 9))
    near = {"rtol": 1e-6, "atol": 0.0}
    torch.testing.assert_close(model.regressions(values), torch.linalg.pinv(slopes) @ values / 1e8, **near)
    left = torch.linalg.solve(slopes @ slopes.mT, values) / 1e16
    torch.testing.assert_close(model.unexplained(values), left, **near)
