"""The control variate against full sweeps, and when it is not taken."""

import pytest
import torch

import bayesdd
from bayesdd.density.control_variate import ERROR, control_variate_of
from bayesdd.density.density import Density
from bayesdd.inference.mode import fit
from bayesdd.target.target import LARGE, Target
from models import gaussian_mean, logistic_regression


def posterior(rows=150_000, dim=3):
    task = logistic_regression.task(rows=rows, dim=dim)
    density = Density([(task, task.data, None)])
    gaussian = fit(density)
    return task, density, gaussian, gaussian.draw(300, torch.Generator().manual_seed(0))


def test_its_error_is_the_error():
    """Forced onto few rows: deviations from full sweeps are as large as the standard errors say."""
    _, density, gaussian, draws = posterior()
    wide = gaussian.mean + 6 * (draws - gaussian.mean)
    cheap = control_variate_of(density, gaussian.mean, draws, seed=0)
    assert cheap is not None
    value, error = cheap.log_likelihood(wide)
    ratio = (value - density.sweep(wide)) / error
    assert 0.3 < float(ratio.square().mean().sqrt()) < 3
    near, small = cheap.log_likelihood(draws)
    assert float((near - density.sweep(draws)).abs().max()) < 10 * ERROR
    assert float(small.max()) < 2 * ERROR


def test_third_derivatives_leave_a_hundredth_of_the_error():
    """On equally few rows, at the posterior's draws; and the error is still the error."""
    _, density, gaussian, draws = posterior()
    second = control_variate_of(density, gaussian.mean, draws, seed=0)
    third = control_variate_of(density, gaussian.mean, draws, seed=0, axes=gaussian.factor, error=1e-4)
    exact = density.sweep(draws)
    (rough, _), (close, error) = (one.log_likelihood(draws) for one in (second, third))
    assert third.folds[0].size == second.folds[0].size
    assert float((close - exact).abs().max()) < 0.03 * float((rough - exact).abs().max())
    assert float(((close - exact) / error).square().mean().sqrt()) < 3


def test_it_is_exact_where_the_likelihood_is_quadratic():
    task = gaussian_mean.task(rows=20_000, dim=4)
    density = Density([(task, task.data, torch.linspace(0.5, 2.0, task.size, dtype=torch.float64))])
    gaussian = fit(density)
    cheap = control_variate_of(density, gaussian.mean, gaussian.draw(64, torch.Generator().manual_seed(0)), seed=0)
    draws = torch.randn(50, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    value, error = cheap.log_likelihood(draws)
    torch.testing.assert_close(value, density.sweep(draws), rtol=1e-9, atol=1e-6)
    assert float(error.max()) < 1e-6


def test_draws_of_any_number_give_the_same():
    """Draws are filled up to whole blocks; what fills them is cut off."""
    _, density, gaussian, draws = posterior()
    cheap = control_variate_of(density, gaussian.mean, draws, seed=0)
    value, error = cheap.log_likelihood(draws)
    for some in (draws[:1], draws[:7]):
        one, spread = cheap.log_likelihood(some)
        torch.testing.assert_close(one, value[: len(some)], rtol=1e-12, atol=1e-9)
        torch.testing.assert_close(spread, error[: len(some)], rtol=1e-6, atol=1e-9)


def test_few_rows_and_wide_posteriors_take_full_sweeps():
    _, density, gaussian, draws = posterior(rows=6000)
    assert control_variate_of(density, gaussian.mean, draws, seed=0) is None


@pytest.fixture(scope="module")
def large():
    return logistic_regression.task(rows=LARGE + 1000, dim=3)


def test_a_target_of_many_rows_sweeps_few(large):
    target = Target([large], large, "cpu", 0)
    draws = target.gaussian().draw(200, torch.Generator().manual_seed(0))
    before = target.joint.evaluations
    cheap = target.with_control_variate(draws)
    value, error = cheap.log_likelihood(draws)
    assert target.joint.evaluations - before < 100  # full sweeps would be 200
    exact, none = target.log_likelihood(draws)
    assert none == 0 and float((value - exact).abs().max()) < 0.02
    assert 0 < error <= 0.01
    assert cheap.with_control_variate(draws) is cheap
    always = Target([large], large, "cpu", 0, exact=True)
    assert always.with_control_variate(draws) is always
    # Draws far out, where the expansion is poor, go over all rows.
    far = draws + 0.5
    swept, none = cheap.log_likelihood(far)
    torch.testing.assert_close(swept, target.joint.sweep(far))
    assert none == 0


@pytest.mark.long
def test_certificates_agree(large):
    distilled = bayesdd.distill(large, 8, seed=0, progress=False)
    assert distilled.certificate.ok
    few, full = (bayesdd.certify(large, distilled, seed=3, exact=exact) for exact in (False, True))
    assert abs(few.kl_reverse - full.kl_reverse) < 4 * few.kl_reverse_se + 1e-6
    assert few.sweeps < 0.5 * full.sweeps


@pytest.mark.long
def test_passes_over_all_rows_are_few(large):
    """Gradients to the mode and one Hessian (P + 1), in the distillation as in a certificate on its own."""
    found = bayesdd.distill(large, 8, seed=1, progress=False)
    assert found.certificate.gradients < 25 and bayesdd.certify(large, found, seed=3).gradients < 25
