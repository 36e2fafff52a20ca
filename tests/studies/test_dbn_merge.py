"""Parts of the merging studies: baselines on complete data are the exact posterior; claims say what records hold."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch

from bayesdd import dbn
from studies.dbn_merge import baselines, claims
from studies.dbn_merge.cases import categorical, gaussian, hides
from studies.pbc_merge import pbc


def complete(problem):
    """The same problem with nothing hidden and no noise."""
    return dataclasses.replace(problem, seen=problem.clean.double(), noise=0.0)


def test_available_moments_of_complete_rows_are_the_exact_posterior():
    problem = complete(gaussian(seed=0, slices=3, rows=20, sources=2, variables=4, hidden=1))
    found = baselines.available(problem).families
    exact = dbn.conjugate(problem.template, {"x": problem.clean}).families
    for site, family in exact.items():
        for name in ("mean", "precision", "shape", "scale"):
            torch.testing.assert_close(getattr(found[site], name), getattr(family, name))


def test_available_counts_of_complete_rows_are_the_exact_posterior():
    problem = complete(categorical(seed=0, slices=3, rows=20, variables=4, hidden=1))
    found = baselines.available(problem).families
    for site, family in dbn.conjugate(problem.template, {"x": problem.clean}).families.items():
        torch.testing.assert_close(found[site].concentration, family.concentration)


def test_means_are_those_of_many_draws():
    problem = gaussian(seed=0, slices=3, rows=20, sources=2, variables=4, hidden=1)
    exact = dbn.conjugate(problem.template, {"x": problem.clean})
    draws = exact.draw(4000, seed=0)
    for site, mean in baselines.means(exact).items():
        error = draws[site].std(0) / np.sqrt(4000)
        assert bool(((draws[site].mean(0) - mean[0]).abs() < 4.5 * error).all())


def test_imputation_keeps_what_was_seen():
    for problem in (gaussian(seed=0, slices=2, rows=20), categorical(seed=0, slices=2, rows=20, variables=4, hidden=1)):
        filled = baselines.imputed(problem, seed=0, rounds=2)
        seen = ~problem.seen.isnan()
        assert bool((filled[seen] == problem.seen[seen]).all())
        assert not bool(filled.isnan().any())


def test_perturbation_moves_one_part_at_a_time():
    problem = gaussian(seed=0, slices=2, rows=20)
    steps = list(baselines.perturbed(problem, 6, seed=0, iterations=3))
    assert {tuple(x.shape) for x in steps} == {(6, 2, 6)}
    changed = (steps[1] != steps[0]).flatten(1).any(1)
    assert changed.tolist() == [False, False, True, True, False, False]  # the second of parts of 2, 2, 1 and 1 rows


@pytest.mark.parametrize(("sources", "variables", "hidden"), [(4, 6, 2), (3, 5, 3), (2, 4, 1)])
def test_every_variable_is_seen_by_some_source(sources, variables, hidden):
    for seed in range(20):
        dealt = hides(np.random.default_rng(seed), sources, variables, hidden)
        assert all(len(set(part)) == hidden for part in dealt)
        assert not set.intersection(*map(set, dealt))


def test_sources_that_hide_everything_are_refused():
    with pytest.raises(ValueError, match="hide less"):
        hides(np.random.default_rng(0), 1, 3, 2)


def test_some_source_sees_every_categorical_family_whole():
    problem = categorical(seed=1, slices=2, rows=4)
    seen = [(~part.isnan()).all((0, 1)) for part in problem.seen.split(problem.sizes)]
    for family in problem.template.structure.transition:
        names = {family.variable, *(name for name, _ in family.parents)}
        places = [problem.template.variables.index(name) for name in names]
        assert any(bool(one[places].all()) for one in seen)
    assert any(not bool(one.all()) for one in seen)


def records(distilled):
    """One setting with two seeds: the second is worse."""
    rows = []
    for seed, mine in enumerate(distilled):
        for method, size, value in (("distilled", 50, mine), ("clean subsample", 50, -10.0), ("all sources", 0, -9.0)):
            for structure in ("given", "learned"):
                rows.append({"kind": structure, "T": 5, "seed": seed, "method": method, "M": size})
                rows[-1] |= {"structure": structure, "predictive": value}
    return pd.DataFrame(rows)


@pytest.mark.parametrize(("distilled", "met"), [((-9.0, -10.9), [True, True]), ((-9.5, -10.7), [False, True])])
def test_claims_are_about_means_within_seeds(distilled, met):
    assert claims.checked(records(distilled))["met"].tolist() == met


def test_visits_become_yearly_slices():
    x = pbc.sequences(2)
    frame = pbc.frame()
    first = frame[frame["id"] == 1].iloc[0]
    assert first["day"] == 0
    lab = pbc.LABS["bilirubin"]
    assert x[0, 0, 0] == pytest.approx((np.log(first["bili"]) - lab.centre) / lab.scale)
    seen = set().union(*map(set, pbc.LACKING))
    assert seen <= set(pbc.LABS)
    years = frame["day"] / pbc.DAYS
    came = frame[(years - 1).abs() <= 0.5]["id"].nunique()
    assert (~np.isnan(x[:, 1]).all(1)).sum() == came
