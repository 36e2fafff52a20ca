"""Augmentation from sufficient statistics: complete rows give the exact posterior, moments have their expectation."""

import math

import pytest
import torch
from scipy import stats

from bayesdd import dbn
from bayesdd.dbn import Template
from bayesdd.dbn.inference.augmentation import Augmentation, _independent, augmented, expectation_maximised
from bayesdd.dbn.inference.marginal import Marginal
from bayesdd.dbn.inference.patterns import patterns_of
from bayesdd.dbn.likelihood.gaussian import entries

NET = Template(
    ("c", "a", "b"), static=("s",), intra=(("s", "a"), ("a", "b")), inter=(("a", "a"), ("c", "a"), ("b", "c"))
)
NOISY = Template(NET.variables, NET.intra, NET.inter, NET.static, noise_site="error")
OWN = Template(
    NET.variables,
    NET.intra,
    NET.inter,
    NET.static,
    noise={"c": 0.3},
    noise_site={"a": "error", "s": "error", "b": "other"},
)


def rows(count, gaps=False):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(count, 3, 3, generator=generator, dtype=torch.float64)
    static = torch.randn(count, 1, generator=generator, dtype=torch.float64)
    if gaps:
        x[: count // 2, :, 1], x[0, 2], static[1] = torch.nan, torch.nan, torch.nan
    return x, static


def test_complete_rows_give_draws_from_the_exact_posterior():
    x, static = rows(12)
    augmentation = Augmentation([NET], patterns_of(NET, [(x, static)]), 3)
    generator = torch.Generator().manual_seed(0)
    found, statistics = augmented(
        [NET],
        augmentation.patterns,
        3,
        start=augmentation.starts(4, generator),
        draws=200,
        burn=1,
        thin=1,
        generator=generator,
    )
    exact = dbn.conjugate(NET, {"x": x, "static": static}).families["a"]
    ours = found["a_variance"].flatten().numpy()
    assert stats.kstest(ours, stats.invgamma(float(exact.shape), scale=float(exact.scale)).cdf).pvalue > 1e-3
    family = [family.site for family in NET.structure.families].index("a")
    torch.testing.assert_close(statistics.precision[family], exact.shape / exact.scale)


@pytest.mark.parametrize("noisy", [NOISY, OWN], ids=["one noise", "a noise a variable"])
def test_drawn_moments_have_the_means_that_expectation_maximisation_takes(noisy):
    """Few rows of a pattern, many rows of one, and rows alone; an unknown noise, whose squares are among them."""
    patterns = patterns_of(noisy, [rows(60, gaps=True)])
    augmentation, count = Augmentation([noisy], patterns, 3), 4000
    one = augmentation.starts(1, torch.Generator().manual_seed(1))
    exact, squares = augmentation.completed(*augmentation.joint(one), one)
    many = {site: value.expand(count, *value.shape[1:]) for site, value in one.items()}
    generator = torch.Generator().manual_seed(2)
    drawn, theirs = augmentation.completed(*augmentation.joint(many), many, generator)
    for mean, draws in ((exact[0], drawn), *((squares[site][0], theirs[site]) for site in noisy.noise_sites)):
        error = draws.std(0) / math.sqrt(count) + 1e-9
        assert ((draws.mean(0) - mean).abs() < 4.5 * error).all()


@pytest.mark.parametrize(("variables", "static"), [(3, 1), (1, 3), (2, 0), (1, 4)])
def test_moments_of_each_kind_of_slice_are_those_of_every_row(variables, static):
    """Row by row from the joint normal; of some rows only early static values are seen, others end early."""
    moving, fixed = (tuple(f"{name}{k}" for k in range(n)) for name, n in (("v", variables), ("s", static)))
    intra = tuple((parent, moving[0]) for parent in fixed)
    template = Template(moving, intra, tuple((name, name) for name in moving), fixed, noise=0.3)
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(40, 3, variables, generator=generator, dtype=torch.float64)
    own = torch.randn(40, static, generator=generator, dtype=torch.float64)
    x[torch.rand(x.shape, generator=generator) < 0.3], x[10:20, 1:] = torch.nan, torch.nan
    if static:
        own[5:30, 1:], x[20:30] = torch.nan, torch.nan
    seen = ~torch.cat([own, x.flatten(1)], 1).isnan().all(1)  # a source refuses rows of which nothing is seen
    x, own = x[seen], own[seen]
    augmentation = Augmentation([template], patterns_of(template, [(x, own)]), 3)
    one = augmentation.starts(1, generator)
    (mean,), (factor,) = augmentation.joint(one)
    covariance, count, size = factor @ factor.mT, 1 + static, variables
    expected = torch.zeros(3, count + 2 * size, count + 2 * size, dtype=torch.float64)
    for row in entries(template, x, own):
        at = (~row.isnan()).nonzero()[:, 0]
        gain = torch.linalg.solve(covariance[at][:, at] + 0.09 * torch.eye(len(at), dtype=row.dtype), covariance[at]).mT
        whole = torch.cat([mean.new_ones(1), mean + gain @ (row[at] - mean[at])])
        moments = torch.outer(whole, whole)
        moments[1:, 1:] += covariance - gain @ covariance[at]
        expected[0, :count, :count] += moments[:count, :count]
        for t in range(int((at.max() - static).div(size, rounding_mode="floor")) + 1):
            start = count + max(t - 1, 0) * size
            of = torch.tensor([*range(count), *range(start, count + (t + 1) * size)])
            to = torch.tensor([*range(count), *range(count + 2 * size - (len(of) - count), count + 2 * size)])
            expected[min(t, 1) + 1, to[:, None], to] += moments[of[:, None], of]
    found, _ = augmentation.completed(mean[None], factor[None], one)
    torch.testing.assert_close(found[0], expected, rtol=1e-10, atol=1e-10)


def test_fewer_normal_rows_have_the_second_moments_of_many():
    """Wishart matrices: means n I, and variances of the diagonal 2 n, of more rows and of fewer than entries."""
    count, chains, width = torch.tensor([30.0, 7.0], dtype=torch.float64), 20_000, 6
    some = _independent(count, chains, 3, width, torch.Generator().manual_seed(0))
    assert some.shape == (chains, 2, 9, width)
    moments = some.mT @ some
    spread = math.sqrt(2 / chains)
    for n, found in zip(count.tolist(), moments.unbind(1), strict=True):
        assert ((found.mean(0) / n - torch.eye(width)).abs() < 5 * spread / math.sqrt(n)).all()
        variance = found.diagonal(dim1=1, dim2=2).var(0) / (2 * n)
        assert ((variance - 1).abs() < 5 * spread * math.sqrt(1 + 6 / n)).all()


def climbed(noisy):
    """Patterns, their density, and where four steps of expectation maximisation lead, each of them upwards."""
    patterns = patterns_of(noisy, [rows(60, gaps=True)])
    marginal = Marginal([noisy], patterns, 3)
    start = Augmentation([noisy], patterns, 3).starts(2, torch.Generator().manual_seed(1))
    heights = [marginal.log_joint(marginal.points(start))]
    for _ in range(4):
        start = expectation_maximised([noisy], patterns, 3, start=start, steps=1)
        heights.append(marginal.log_joint(marginal.points(start)))
    assert (torch.stack(heights).diff(dim=0) > 0).all()
    return patterns, marginal, start, heights[-1]


def test_expectation_maximisation_climbs_to_where_the_density_is_level():
    patterns, marginal, start, height = climbed(NOISY)
    end = expectation_maximised([NOISY], patterns, 3, start=start, steps=3000)
    value, slope = marginal.log_joint_gradient(marginal.points(end))
    assert (value >= height).all() and float(slope.abs().max()) < 2.0


def test_expectation_maximisation_climbs_with_a_noise_a_variable():
    climbed(OWN)
