"""The density from sufficient statistics is that of the sources' rows, and its gradient its slope."""

import dataclasses

import pytest
import torch

import bayesdd
from bayesdd import dbn
from bayesdd.dbn import Source, Template
from bayesdd.dbn.inference.marginal import Marginal
from bayesdd.dbn.inference.patterns import patterns_of
from bayesdd.dbn.likelihood import unconstrain
from bayesdd.dbn.likelihood.source import gathered, with_noise

NET = Template(
    ("c", "a", "b"), static=("s",), intra=(("s", "a"), ("a", "b")), inter=(("a", "a"), ("c", "a"), ("b", "c"))
)


def sources():
    """Noisy ones of known, unknown and no noise, with shared patterns, patterns of one row, and early ends."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(60, 4, 3, generator=generator, dtype=torch.float64)
    static = torch.randn(60, 1, generator=generator, dtype=torch.float64)
    x[:10, 2:], x[:20, :, 1], static[30:] = torch.nan, torch.nan, torch.nan
    x[57:][torch.rand(3, 4, 3, generator=generator) < 0.4] = torch.nan
    each = [{"x": x[k::3], "static": static[k::3]} for k in range(3)]
    return [
        Source(each[0], noise=0.3),
        Source(each[1], noise_site="error"),
        Source(each[2], noise_site={NET.variables[0]: "own"}),
    ]


@pytest.fixture(scope="module")
def both():
    rows = gathered(NET, sources())
    marginal = Marginal(with_noise(NET, sources()), patterns_of(NET, rows), 4)
    density = bayesdd.density.Density([(task, task.data, None) for task in dbn.target(NET, sources())])
    return marginal, density


def test_density_is_that_of_the_tasks_up_to_a_constant(both):
    marginal, density = both
    points = 0.4 * torch.randn(5, marginal.dim, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    values = marginal.values(points)
    torch.testing.assert_close(marginal.points(values), points)
    task = dataclasses.replace(NET, noise_site={NET.variables[0]: "own", NET.variables[1]: "error"})
    places = {site: unconstrain(task, values)[:, at] for site, at in _places(task).items()}
    theirs = density.log_joint(torch.cat([places[site] for site in density.starts], 1))
    difference = marginal.log_joint(points) - theirs
    torch.testing.assert_close(difference, difference[:1].expand(5), rtol=0, atol=1e-8)


def _places(template):
    used, found = 0, {}
    for site, shape in template.sites.items():
        width = torch.Size(shape).numel()
        found[site] = slice(used, used + width)
        used += width
    return found


def test_gradient_is_the_slope_of_the_density(both):
    marginal, _ = both
    point = 0.3 * torch.randn(1, marginal.dim, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    value, slope = marginal.log_joint_gradient(point)
    torch.testing.assert_close(value, marginal.log_joint(point))
    steps = 1e-5 * torch.eye(marginal.dim, dtype=torch.float64)
    differences = (marginal.log_joint(point + steps) - marginal.log_joint(point - steps)) / 2e-5
    torch.testing.assert_close(slope[0], differences, rtol=1e-6, atol=1e-5)
