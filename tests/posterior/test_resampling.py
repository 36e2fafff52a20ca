"""Resampling keeps expectations; a correction makes draws of a distilled posterior draws of the full one."""

import pytest
import torch

from bayesdd import CertificateWarning, Distilled
from bayesdd.density.density import Density, density_of
from bayesdd.inference import Draws, laplace
from bayesdd.posterior.resampling import corrected, resampled
from models import gaussian_mean

TASK = gaussian_mean.task(rows=50, dim=2)
MEAN, COVARIANCE = gaussian_mean.exact(**TASK.data)


def test_a_draw_is_taken_as_often_as_its_weight_says():
    weight = torch.tensor([[0.5, 2.25, 0.0, 1.0], [1.0, 1.0, 2.0, 0.25]]).double()
    values = torch.arange(8.0).reshape(2, 4, 1)
    for seed in range(20):
        found = resampled(Draws(values, weight.log(), {"place": values[..., 0]}), seed)
        counts = torch.bincount(found.values.flatten().long(), minlength=8)
        assert bool(((counts - weight.flatten()).abs() < 1).all())
        assert torch.equal(found.stats["place"], found.values[..., 0]) and found.log_weight is None


def test_draws_of_equal_weight_stay_as_they_are():
    draws = Draws(torch.randn(3, 5, 2), None)
    assert resampled(draws, 0) is draws
    even = resampled(Draws(draws.values, torch.full((3, 5), 3.0).double()), 0)
    assert torch.equal(even.values, draws.values)


def test_corrected_draws_have_the_full_posterior():
    """A set of too little weight in another place: its draws are off by many standard errors, corrected ones by few."""
    wide = Distilled({"x": TASK.data["x"] + 0.05}, torch.full((50,), 0.7))
    density = density_of(TASK, wide, "cpu")
    found = laplace(density, draws=20_000, chains=2, seed=0)
    weighted, said = corrected(found, Density([(TASK, TASK.rows, None)]), density)
    flat = resampled(weighted, 0).flat
    error = COVARIANCE.diagonal().sqrt() / said["corrected_ess"] ** 0.5
    assert said["corrected_khat"] < 0.7 and 10_000 < said["corrected_ess"] < 40_000
    assert bool(((flat.mean(0) - MEAN).abs() < 5 * error).all())
    assert bool(((flat.var(0) / COVARIANCE.diagonal() - 1).abs() < 5 * (2 / said["corrected_ess"]) ** 0.5).all())
    assert bool(((found.flat.mean(0) - MEAN).abs() > 20 * error).all())


def test_draws_that_do_not_reach_the_full_posterior_are_warned_of():
    narrow = Distilled({"x": TASK.data["x"] + 0.5}, torch.full((50,), 5.0))
    density = density_of(TASK, narrow, "cpu")
    found = laplace(density, draws=500, chains=2, seed=0)
    with pytest.warns(CertificateWarning, match="cannot be corrected to all rows: k-hat"):
        corrected(found, Density([(TASK, TASK.rows, None)]), density)
