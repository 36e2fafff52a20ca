"""Gaussians against their definitions."""

import math

import pytest
import torch

from bayesdd.numerics.gaussian import Gaussian, kl, marginal, moment_matched
from models import gaussian_mean


def gaussian(seed, dim=3):
    generator = torch.Generator().manual_seed(seed)
    root = torch.randn(dim, dim, generator=generator, dtype=torch.float64)
    mean = torch.randn(dim, generator=generator, dtype=torch.float64)
    return Gaussian(mean, torch.linalg.cholesky(root @ root.T + torch.eye(dim, dtype=torch.float64)))


def covariance(g):
    return g.factor @ g.factor.T


def test_distances_and_densities():
    g, points = gaussian(0), torch.arange(12, dtype=torch.float64).reshape(2, 2, 3)
    shift = points - g.mean
    square = torch.einsum("...i,ij,...j->...", shift, torch.linalg.inv(covariance(g)), shift)
    torch.testing.assert_close(g.distance(points), square)
    torch.testing.assert_close(g.distance(points[0, 0], points[1, 1]), g.distance(g.mean + points[1, 1] - points[0, 0]))
    norm = 0.5 * (3 * math.log(2 * math.pi) + float(torch.logdet(covariance(g))))
    torch.testing.assert_close(g.log_prob(points[0]), -0.5 * square[0] - norm)


def test_the_divergence():
    p, q = gaussian(1), gaussian(2)
    assert kl(p, q) == pytest.approx(float(gaussian_mean.kl((p.mean, covariance(p)), (q.mean, covariance(q)))))
    assert kl(p, p) == pytest.approx(0, abs=1e-12)


def test_a_marginal_has_the_joint_s_mean_and_covariance():
    g, index = gaussian(3), torch.tensor([2, 0])
    found = marginal(g, index)
    torch.testing.assert_close(found.mean, g.mean[index])
    torch.testing.assert_close(covariance(found), covariance(g)[index[:, None], index])


def test_matched_moments_are_those_of_the_draws():
    draws = gaussian(4).draw(20_000, torch.Generator().manual_seed(0))
    found = moment_matched(draws)
    torch.testing.assert_close(found.mean, draws.mean(0))
    torch.testing.assert_close(covariance(found), torch.cov(draws.T), rtol=1e-3, atol=1e-3)
    weight = torch.zeros(20_000, dtype=torch.float64)
    weight[:500] = 1 / 500
    torch.testing.assert_close(moment_matched(draws, weight).mean, draws[:500].mean(0))


def test_draws_that_agree_have_the_spread_of_their_rounding():
    draws = torch.tensor([[3.0, 0.0, 1.0], [3.0, 0.0, 2.0]], dtype=torch.float64)
    found = moment_matched(draws)
    assert 0 < covariance(found)[0, 0] < 1e-28 and 0 < covariance(found)[1, 1] < 1e-200
    torch.testing.assert_close(covariance(found)[2, 2], draws[:, 2].var())
    assert bool(torch.isfinite(found.log_prob(draws)).all())
    alone = moment_matched(draws, torch.tensor([0.0, 1.0], dtype=torch.float64))
    assert torch.equal(alone.mean, draws[1]) and bool(torch.isfinite(alone.log_prob(draws[1:])).all())
