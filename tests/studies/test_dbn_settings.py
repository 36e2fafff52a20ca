"""Rivals of the merge by setting: the sampler against exact conditionals and pooled draws, Rubin's rules by hand."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from bayesdd import dbn
from bayesdd.dbn.inference import NormalInverseGamma, Posterior, pooled
from bayesdd.dbn.inference.drawing import diagnostics
from bayesdd.dbn.likelihood import missing
from studies.dbn_merge.cases import gaussian
from studies.dbn_settings import lume, rivals


def test_conditionals_are_those_of_the_unrolled_normal():
    problem = gaussian(seed=1, slices=3, variables=4, rows=5, sources=2, hidden=1)
    truth, template, size = problem.truth, problem.template, 12
    parts = lume.unrolled(template, 3)
    given = {p.site: (truth[p.site].numpy()[None], truth[f"{p.site}_variance"].numpy()[None]) for p in parts}
    given = {site: (coefficients + 0.1, variance) for site, (coefficients, variance) in given.items()}  # intercepts too
    precision, shift = (part[0] for part in lume.joint(parts, given, size))
    values = {site: torch.as_tensor(part[0]) for site, part in ((s, v[0]) for s, v in given.items())}
    values |= {f"{site}_variance": torch.as_tensor(v[1][0]) for site, v in given.items()}
    mean, factor = missing.unrolled(template, values, 3)
    place = [t * 4 + template.variables.index(name) for (name, t), _ in template.structure.entries(3)]
    precision, shift = precision[np.ix_(place, place)], shift[place]
    np.testing.assert_allclose(precision @ (factor @ factor.mT).numpy(), np.eye(size), atol=1e-10)
    np.testing.assert_allclose(np.linalg.solve(precision, shift), mean.numpy(), atol=1e-10)
    near = lume.neighbours(parts, size)
    for i, row in enumerate(lume.joint(parts, given, size)[0][0]):
        assert set(np.flatnonzero(row)) - {i} <= set(near[i].tolist())
        assert i not in near[i] and len(near[i]) < size - 1


@pytest.mark.long
@pytest.mark.parametrize("noise", [0.0, 0.4])
def test_lume_draws_from_the_posterior_given_all_sources(noise):
    """So few rows that a prior counted twice would be seen."""
    problem = gaussian(seed=0, slices=3, variables=3, rows=12, sources=2, hidden=1, noise=noise)
    template = replace(problem.template, coefficient_scale=0.5)
    problem = replace(problem, template=template)
    ours = lume.draws(problem, count=8000, seed=0, noise=noise)
    theirs = pooled(template, problem.sources, draws=4000, seed=1)
    rhat, _ = diagnostics(ours)
    assert rhat < 1.05
    for site, value in ours.items():
        _, ess = diagnostics({site: value})
        mine, full = value.flatten(0, 1), theirs.draws[site]
        error = full.std(0) * (1 / ess + 1 / theirs.ess) ** 0.5
        assert ((mine.mean(0) - full.mean(0)).abs() < 4.5 * error).all(), site


def complete(noise):
    """Sources that hide nothing."""
    problem = gaussian(seed=0, slices=3, variables=3, rows=20, sources=2, hidden=1, noise=noise)
    away = torch.randn(problem.clean.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return replace(problem, seen=problem.clean + noise * away)


def test_measured_values_are_taken_as_true_without_noise():
    """A complete source without noise: independent draws of the closed form."""
    problem = complete(0.3)
    ours = lume.draws(problem, count=4000, seed=0, burn=0)
    exact = dbn.conjugate(problem.template, {"x": problem.seen}).draw(4000, seed=1)
    for site, value in ours.items():
        mine, theirs = value.flatten(0, 1), exact[site]
        error = theirs.std(0) * (2 / 4000) ** 0.5
        assert ((mine.mean(0) - theirs.mean(0)).abs() < 4.5 * error).all(), site
        assert ((mine.std(0) / theirs.std(0)).log().abs() < 4.5 * 1.5 * (1 / 4000) ** 0.5).all(), site


def test_imputation_of_complete_rows_without_noise_is_the_closed_form():
    problem = complete(0.0)
    exact = dbn.conjugate(problem.template, {"x": problem.seen}).families
    for found in (rivals.paired(problem, seed=0), *rivals.mice(problem, seed=0, sets=2)):
        assert found.families.keys() == exact.keys()
        for site, family in found.families.items():
            torch.testing.assert_close(vars(family), vars(exact[site]), check_dtype=True, rtol=1e-8, atol=1e-8)


def test_imputed_sets_differ_where_some_source_lacks_a_variable_and_nowhere_else():
    problem = gaussian(seed=0, slices=4, variables=4, rows=30, sources=2, hidden=1, noise=0.0)
    lacked = {
        name for name, x in zip(problem.template.variables, problem.seen.unbind(2), strict=True) if x.isnan().any()
    }
    sets = [found.families for found in rivals.mice(problem, seed=0, sets=3)]
    structure = problem.template.structure
    kinds = set()
    for family in structure.families:
        guessed = bool({family.variable, *(name for name, _ in family.parents)} & lacked)
        spread = torch.stack([families[family.site].mean for families in sets]).std(0)
        assert (spread > 0).all() == guessed
        kinds.add(guessed)
    assert kinds == {True, False}


def inverse_gamma(mean, shape=30.0):
    mean = torch.tensor(mean, dtype=torch.float64)
    precision = torch.tensor([[4.0, 1.0], [1.0, 2.0]], dtype=torch.float64)
    return NormalInverseGamma(mean, precision, *(torch.tensor(v, dtype=torch.float64) for v in (shape, 2.0 * shape)))


def test_rubins_rules():
    """Two sets: total variance is within + 3/2 between; the log of a variance likewise, whose sets agree here."""
    sets = [Posterior({"a": inverse_gamma(mean)}) for mean in ([1.0, 0.0], [3.0, 0.5])]
    count = 200_000
    found = rivals.rubin(sets, draws=count, seed=0)
    one = inverse_gamma([0.0, 0.0])
    within = one.scale / (one.shape - 1) * torch.linalg.inv(one.precision)
    away = torch.tensor([1.0, 0.25], dtype=torch.float64)
    total = within + 1.5 * 2 * torch.outer(away, away)
    error = (total.diagonal() / count).sqrt()
    assert ((found["a"].mean(0) - torch.tensor([2.0, 0.25])).abs() < 4.5 * error).all()
    torch.testing.assert_close(found["a"].mT.cov(), total, rtol=4.5 * (2 / count) ** 0.5, atol=0.01)
    logs = found["a_variance"].log()
    spread = torch.polygamma(1, one.shape)
    assert abs(logs.mean() - (one.scale.log() - torch.digamma(one.shape))) < 4.5 * (spread / count).sqrt()
    torch.testing.assert_close(logs.var(), spread, rtol=4.5 * (2 / count) ** 0.5, atol=0)
