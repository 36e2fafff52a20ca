"""Functions of draws: values, tangents, coverage, and the chains' diagnostics."""

import numpy as np
import pytest
import torch

from bayesdd.networks import functions
from bayesdd.posterior import arviz


def quadratic(w):
    return torch.stack([w[0] ** 2 + w[1], w.sum(), torch.tensor(1.0, dtype=torch.float64)])


def draws(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_values_keep_chains_and_draws():
    theta = draws(3, 100, 2)
    found = functions.values(quadratic, theta)
    assert found.shape == (3, 100, 3)
    torch.testing.assert_close(found[2, 7], quadratic(theta[2, 7]))


def test_the_tangent_is_the_function_to_first_order():
    mode, step = draws(2), 1e-4 * draws(5, 2)
    tangent = functions.linearised(quadratic, mode)
    torch.testing.assert_close(tangent(mode), quadratic(mode))
    gap = functions.values(quadratic, mode + step) - functions.values(tangent, mode + step)
    torch.testing.assert_close(gap[:, 0], step[:, 0] ** 2, rtol=1e-4, atol=1e-14)
    assert float(gap[:, 1:].abs().max()) < 1e-14


def test_coverage_of_normal_draws():
    truth = draws(4000)
    predicted = torch.randn(4000, 1, generator=torch.Generator().manual_seed(5), dtype=torch.float64).expand(-1, 4000)
    share, width = functions.coverage(predicted, truth, 0.8)
    # Quantiles of 4,000 draws and 4,000 truths: both err by sqrt(0.8 * 0.2 / 4000) at most, about.
    assert abs(share - 0.8) < 4.5 * np.sqrt(2 * 0.8 * 0.2 / 4000)
    assert abs(width - 2 * 1.2816) < 0.15


@pytest.mark.parametrize(
    ("predicted", "truth", "level", "words"),
    [
        (torch.zeros(2, 3, 4), torch.zeros(4), 0.9, "join chains"),
        (torch.zeros(2, 3), torch.zeros(4), 0.9, r"\(2, 3\) and \(4,\)"),
        (torch.zeros(2, 3), torch.zeros(3), 90, "between 0 and 1, got 90"),
    ],
)
def test_coverage_refuses(predicted, truth, level, words):
    with pytest.raises(ValueError, match=words):
        functions.coverage(predicted, truth, level)


def test_diagnostics_see_chains_that_disagree():
    theta = draws(4, 500, 2)
    fine = arviz.function_diagnostics(theta)
    assert fine.rhat.shape == fine.ess.shape == (2,)
    assert fine.rhat.max() < 1.01 and (np.abs(fine.ess / 2000 - 1) < 0.3).all()
    theta[0, :, 1] += 3
    apart = arviz.function_diagnostics(theta)
    assert apart.rhat[0] < 1.01 and apart.rhat[1] > 1.3 and apart.ess[1] < 50
    assert arviz.function_diagnostics(theta[..., 0]).rhat.shape == (1,)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (np.zeros((1, 50, 2)), "at least two chains"),
        (np.zeros((2, 3, 2)), "four draws"),
        (np.full((2, 50, 2), np.nan), "finite values"),
    ],
)
def test_diagnostics_refuse(values, words):
    with pytest.raises(ValueError, match=words):
        arviz.function_diagnostics(values)
