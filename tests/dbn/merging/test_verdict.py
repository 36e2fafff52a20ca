"""Certificates of merged rows against divergences in closed form, and an unknown noise integrated on a grid."""

import dataclasses
import math

import torch

from bayesdd import dbn
from bayesdd.data import Distilled
from bayesdd.dbn import Source, Template, pooled
from bayesdd.dbn.merging.masked import Gap
from bayesdd.dbn.merging.verdict import _with_noise_integrated, of_complete_rows, of_masked_rows

PAIR = Template(("a", "b"), intra=(("a", "b"),), inter=(("a", "a"),))
CHAIN = Template(("a", "b"), inter=(("a", "a"), ("b", "b"), ("a", "b")))
TABLES = Template(("a", "b"), intra=(("a", "b"),), inter=(("a", "a"),), states={"a": 2, "b": 3})


def divergence(p, q):
    """KL(p, q) of two normal-inverse-gammas, nats."""
    shift, k = p.mean - q.mean, len(p.mean)
    found = torch.trace(torch.linalg.solve(p.precision, q.precision)) - k
    found = found + p.shape / p.scale * (shift @ q.precision @ shift) + p.precision.logdet() - q.precision.logdet()
    ratio = q.shape * (p.scale / q.scale).log() + torch.lgamma(q.shape) - torch.lgamma(p.shape)
    more = (p.shape - q.shape) * torch.digamma(p.shape) - (p.scale - q.scale) * p.shape / p.scale
    return float(found / 2 + ratio + more)


def test_complete_rows_are_judged_as_the_closed_form_says():
    x = torch.randn(200, 3, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    full = pooled(PAIR, [Source({"x": x[:90]}), Source({"x": x[90:]})], draws=400)
    weight = torch.full((100,), 2.0, dtype=torch.float64)
    found = of_complete_rows(full, Distilled({"x": x[:100]}, weight), 0.05, seed=0)
    p, q = (dbn.conjugate(PAIR, {"x": some}, w).families for some, w in ((x[:100], weight), (x, None)))
    reverse, forward = (sum(divergence(a[site], b[site]) for site in p) for a, b in ((p, q), (q, p)))
    assert abs(found.kl_reverse - reverse) < 4 * found.kl_reverse_se
    assert abs(found.kl_forward - forward) < 4 * found.kl_forward_se
    assert reverse > 1 and not found.ok
    assert of_complete_rows(full, Distilled({"x": x}, torch.ones(200)), 0.05, seed=0).ok


def test_complete_tables_are_judged_too():
    parameters = {
        site: torch.softmax(torch.randn(shape, generator=torch.Generator().manual_seed(3)), -1)
        for site, shape in TABLES.sites.items()
    }
    data = dbn.simulate(TABLES, parameters, 150, 3, seed=0)
    full = pooled(TABLES, [Source(data)], draws=400)
    whole = Distilled(data, torch.ones(150))
    assert of_complete_rows(full, whole, 0.05, seed=0).ok
    heavy = of_complete_rows(full, dataclasses.replace(whole, weight=whole.weight * 1.5), 0.05, seed=0)
    p, q = (dbn.conjugate(TABLES, data, w).families for w in (1.5 * torch.ones(150), None))
    reverse = sum(
        float(
            torch.distributions.kl_divergence(
                *(torch.distributions.Dirichlet(one[site].concentration) for one in (p, q))
            ).sum()
        )
        for site in p
    )
    assert abs(heavy.kl_reverse - reverse) < 4 * heavy.kl_reverse_se + 1e-9


def test_masked_rows_are_judged_by_the_gap_at_draws_held_out():
    ratio = 0.1 * torch.randn(1000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found, gap = of_masked_rows(ratio, 0.05), Gap.of(ratio)
    for name in ("kl_forward", "kl_reverse", "khat"):
        assert math.isclose(getattr(found, name), getattr(gap, name), rel_tol=1e-6, abs_tol=1e-9), name
    assert found.ok and not of_masked_rows(6 * ratio, 0.05).ok


def test_an_unknown_noise_is_integrated_out_at_every_draw():
    x = dbn.simulate(
        CHAIN,
        {site: torch.full(shape, 0.6 if shape else 0.5, dtype=torch.float64) for site, shape in CHAIN.sites.items()},
        200,
        4,
        seed=0,
    )["x"]
    x = x + 0.4 * torch.randn(x.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    full = pooled(CHAIN, [Source({"x": x}, noise_site="error")], draws=400)
    few = {site: full.draws[site][::50] for site in CHAIN.sites}
    points = torch.cat([few[s] if shape else few[s].log()[:, None] for s, shape in CHAIN.sites.items()], 1)
    ours = _with_noise_integrated(full, points, 0)
    grid = torch.linspace(0.02, 1.5, 100, dtype=torch.float64)
    prior = torch.distributions.HalfNormal(1.0).log_prob(grid)
    scores = [dbn.log_likelihood(dataclasses.replace(CHAIN, noise=float(v)), few, {"x": x}).sum(1) for v in grid]
    likelihood = (torch.stack(scores) + prior[:, None]).logsumexp(0)
    task = dbn.task(CHAIN, {"x": x})
    likelihood = likelihood + task.log_prior(torch.cat([points[:, at] for at in _places(task)], 1))
    difference = ours - likelihood
    assert float((difference - difference.mean()).abs().max()) < 0.1


def _places(task):
    """Of the task's sites, in its order, in points of the template's."""
    order, used = {}, 0
    for site, shape in CHAIN.sites.items():
        width = math.prod(shape)
        order[site] = list(range(used, used + width))
        used += width
    return [order[site] for site in task.sites]
