"""What the study of one round makes of messages: exact where posteriors are normal."""

import numpy as np
import pytest

from models import linear_regression
from studies import one_round
from studies.one_round import rivals
from studies.one_round.rivals import LOGISTIC, POISSON, Normal
from studies.shared.true_kl import Posterior, between


def test_bfi_is_the_pooled_posterior_of_normals_whatever_the_sources_priors():
    """Sources may have priors of their own; that of all rows counts once."""
    task = linear_regression.task(rows=30, dim=3)
    x, y = (task.data[name].numpy() for name in ("x", "y"))
    sources, priors = [], [np.eye(3), 4 * np.eye(3), np.diag([0.5, 1.0, 2.0])]
    for part, prior in enumerate(priors):
        gram = x[part::3].T @ x[part::3] / linear_regression.NOISE**2
        mean = np.linalg.solve(gram + prior, x[part::3].T @ y[part::3] / linear_regression.NOISE**2)
        sources.append(Normal(mean, gram + prior))
    found = rivals.bfi(sources, np.eye(3), priors)
    mean, covariance = linear_regression.exact(x, y)
    assert found.mean == pytest.approx(mean.numpy(), abs=1e-10)
    assert np.linalg.inv(found.precision) == pytest.approx(covariance.numpy(), abs=1e-10)


@pytest.mark.parametrize("family", [LOGISTIC, POISSON])
def test_modes_have_no_slope_and_the_curvature_of_finite_differences(family):
    (rows, *_) = one_round._simulated(one_round.Setting(family, 80, 1, False), 0)
    mode = rivals.fitted(family, rows, 0.5)
    log_joint = rivals._log_joint(family, rows, 0.5)
    steps = 1e-3 * np.eye(len(mode.mean))
    up, centre, down = log_joint(mode.mean + steps), log_joint(mode.mean[None]), log_joint(mode.mean - steps)
    assert (up - down) / 2e-3 == pytest.approx(0, abs=1e-3)
    assert (2 * centre - up - down) / 1e-6 == pytest.approx(np.diag(mode.precision), rel=1e-3)


def test_averages_of_equal_sources_are_theirs_with_less_variance():
    one = Normal(np.array([1.0, -2.0]), np.array([[2.0, 0.0], [0.0, 5.0]]))
    for found in (rivals.by_rows([one] * 4, [7] * 4), rivals.by_variance([one] * 4)):
        assert found.mean == pytest.approx(one.mean)
        assert found.precision == pytest.approx(4 * one.precision)


def test_kl_of_a_normal_is_that_of_an_estimate_that_knows_neither_normaliser():
    """Both to within their noise, for a normal that is close and one whose mean is an sd away."""
    (rows, *_) = one_round._simulated(one_round.Setting(LOGISTIC, 200, 1, False), 0)
    truth, mode = rivals.sampled(LOGISTIC, rows, 1.0, 0), rivals.fitted(LOGISTIC, rows)
    full = LOGISTIC.posterior(*rows, np.ones(len(rows[1])))
    for shift in (0.0, 1.0):
        mean = mode.mean + shift * np.sqrt(np.diag(np.linalg.inv(mode.precision)))
        found = one_round._of_normal(truth, Normal(mean, mode.precision))
        other = Posterior(lambda w, mean=mean: -(((w - mean) @ mode.precision) * (w - mean)).sum(1) / 2)
        exact = between(full, other, mode.mean, draws=20_000)
        assert found["KL"] == pytest.approx(exact.forward, abs=10 * exact.forward_se)
        assert found["shift"] == pytest.approx(one_round._of_any(exact)["shift"], abs=0.1)
