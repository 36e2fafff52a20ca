"""What the lens study calls true: its mixture density, its draws, moments and predictions."""

import numpy as np
import pytest
import torch

from bayesdd.baselines import uniform
from models import gaussian_mean, gaussian_mixture, logistic_regression
from studies.lens import truth
from studies.lens.cases import CASES
from studies.shared import densities, true_kl


def test_numpy_mixture_is_the_model():
    task = gaussian_mixture.task(rows=50)
    assert list(task.sites) == ["lower", "gap", "spread", "share"]
    rng = np.random.default_rng(0)
    draws, weight = rng.normal(size=(6, task.dim)), rng.exponential(size=50)
    flat = torch.as_tensor(draws)
    log_joint = (task.log_prior(flat) + task.log_likelihood(task.data, flat) @ torch.as_tensor(weight)).numpy()
    difference = densities.gaussian_mixture(task.data["y"].numpy(), weight).log_joint(draws) - log_joint
    assert np.ptp(difference) < 1e-9


def test_a_known_full_posterior_changes_no_divergence():
    task, other = logistic_regression.task(rows=60, dim=3), logistic_regression.task(rows=60, dim=3, seed=1)
    full, small = (densities.logistic(t.data["x"].numpy(), t.data["y"].numpy(), np.ones(60)) for t in (task, other))
    known = true_kl.prepared(full, np.zeros(3), draws=4000, seed=1)
    with_it = true_kl.between(full, small, np.zeros(3), draws=4000, seed=1, known=known)
    without = true_kl.between(full, small, np.zeros(3), draws=4000, seed=1)
    assert with_it.reverse == pytest.approx(without.reverse, rel=1e-9)
    assert with_it.forward == pytest.approx(without.forward, rel=1e-9)
    assert np.exp(with_it.log_p).sum() == pytest.approx(1)
    assert np.exp(known.log_weight).sum() == pytest.approx(1)


def test_moments_and_predictions_of_a_known_posterior():
    """Gaussian mean: importance sampling with the model's own density gives the formula's moments and predictions."""
    task = gaussian_mean.task(rows=40, dim=2)
    distilled = uniform(task, 8, seed=0)

    def build(x, weight):
        mean, covariance = (part.numpy() for part in gaussian_mean.exact(x, weight))
        precision = np.linalg.inv(covariance)
        return true_kl.Posterior(lambda t: -(((t - mean) @ precision) * (t - mean)).sum(1) / 2)

    by_formula = truth.conjugate(gaussian_mean.exact, task, 0).compare(distilled)
    by_sampling = truth.sampled(build, task, 0).compare(distilled)
    for way in ("reverse", "forward"):
        error = by_sampling.kl[f"{way}_se"]
        assert abs(by_sampling.kl[way] - by_formula.kl[way]) < 4 * error
    for ours, exact in zip(by_sampling.moments, by_formula.moments, strict=True):
        assert np.abs(ours[0] - exact[0]).max() < 0.1 * exact[1].max()  # a few hundred effective draws
        assert np.abs(ours[1] / exact[1] - 1).max() < 0.1
    rows = gaussian_mean.task(rows=2000, dim=2).data
    # N(x; m, (1 + v) I) in closed form.
    means, variances = zip(*((m, s**2) for m, s in by_formula.moments), strict=True)
    log_p = [
        -(((rows["x"].numpy() - m) ** 2) / (1 + v) + np.log(1 + v)).sum(1) / 2
        for m, v in zip(means, variances, strict=True)
    ]
    exact = float((log_p[1] - log_p[0]).mean())
    for found in (by_formula, by_sampling):
        assert truth.held_out(task, rows, found) == pytest.approx(exact, abs=0.1 * abs(exact))


def test_intercepts_that_were_integrated_out_are_drawn_again():
    task = next(case for case in CASES if case.name == "varying_intercepts").rows(0, None, True)
    groups = task.sites["z"][0]
    posterior = densities.varying_intercepts(**truth.columns(task.data), weight=np.ones(task.size), groups=groups)
    values = truth.intercepts(task, 0).full.values
    low, z = values[:, :-groups], values[:, -groups:]
    mean, precision = posterior.conditional(low)
    white = (z - mean) * np.sqrt(precision)
    assert np.abs(white.mean(0)).max() < 4 / np.sqrt(len(z))
    assert np.abs(white.std(0) - 1).max() < 4 / np.sqrt(2 * len(z))
    # In the task's own order: both sides are the log joint, up to one constant.
    flat = torch.as_tensor(values[:6])
    joint = (task.log_prior(flat) + task.log_likelihood(task.data, flat).sum(1)).numpy()
    ours = posterior.log_joint(low[:6]) + (np.log(precision[:6]) - white[:6] ** 2).sum(1) / 2
    assert np.ptp(joint - ours) < 1e-9
