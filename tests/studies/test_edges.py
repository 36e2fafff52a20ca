"""Parts of the study of edges: enumeration and hill climbing against all networks, completion, what a table says."""

import itertools
import math

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.linear_model import LassoCV

from bayesdd.dbn import Template
from bayesdd.dbn.learning import bic, learn
from bayesdd.dbn.learning.orders import Candidates, masks
from bayesdd.dbn.learning.search import total
from studies import edges
from studies.edges import baselines, cases, climbing, lasso, orders


def test_enumeration_of_orders_is_that_of_networks():
    """Three variables and a parent of the slice before, random scores: every network counts once an order."""
    generator = torch.Generator().manual_seed(0)
    table = torch.randn(3, 64, generator=generator, dtype=torch.float64)
    sets = [masks([u for u in range(6) if u != v], 5) for v in range(3)]
    found = orders.enumerated(Candidates(sets, [table[v][some] for v, some in enumerate(sets)], [0, 0, 0]))
    exact, norm = np.zeros((6, 3)), 0.0
    for order in itertools.permutations(range(3)):
        before = [{u for u in range(3) if order.index(u) < order.index(v)} | {3, 4, 5} for v in range(3)]
        options = [
            [mask for mask in sets[v].tolist() if {u for u in range(6) if mask >> u & 1} <= before[v]] for v in range(3)
        ]
        weights = [[math.exp(float(table[v][mask])) for mask in some] for v, some in enumerate(options)]
        norm += math.prod(map(sum, weights))
        for v, u in itertools.product(range(3), range(6)):
            having = sum(w for mask, w in zip(options[v], weights[v], strict=True) if mask >> u & 1)
            exact[u, v] += having * math.prod(sum(some) for k, some in enumerate(weights) if k != v)
    np.testing.assert_allclose(found, exact / norm, rtol=1e-9, atol=1e-12)


def test_shares_of_a_chain_are_the_enumerated_probabilities():
    found = orders.measure(4, 0, cases.Settings(draws=200))
    exact, drawn = np.array(found["exact"]), np.array(found["drawn"])
    assert 0.1 < np.median(exact[exact > 0]) < 0.9
    assert (np.abs(drawn - exact) <= 6 * np.sqrt(exact * (1 - exact) / found["draws"]) + 1e-9).all()


def complete(variables, seed=0):
    """Many complete sequences without noise."""
    settings = cases.Settings(sources=2, rows=400, slices=4)
    return cases.simulated(cases.WITHIN, variables, seed, settings)


def template_of(table, names):
    parents = [*names, *names]
    pairs = [(bool(u < len(names)), (parents[u], names[v])) for u, v in np.argwhere(table == 1)]
    intra, inter = ([pair for within, pair in pairs if within is kind] for kind in (True, False))
    return Template(names, intra=tuple(intra), inter=tuple(inter), initial=())


def test_hill_climbing_comes_to_the_best_network():
    problem = complete(4)
    found = template_of(climbing.climbed(problem.clean.numpy(), score=bic, tested=False), problem.template.variables)
    data = {"x": problem.clean}
    best = learn(cases.frame(problem.template), data, score=bic)
    assert total(found, data, score=bic) == pytest.approx(total(best, data, score=bic), rel=1e-12)


def test_candidates_are_edges_that_no_others_explain():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3000, 3, 4))
    for t in (1, 2):
        x[:, t, 1] += x[:, t - 1, 0]  # v0 -> v1 over time
        x[:, t, 2] += x[:, t, 1]  # v1 -> v2 in a slice: v0 is no parent of v2
    found = climbing.candidates(x)
    assert found[4, 1] and found[1, 2] and found[2, 1]  # which end is the parent is for the score to say
    assert not found[4, 2] and found.sum() <= 5
    assert not found[:4].diagonal().any()
    np.testing.assert_array_equal(climbing.climbed(x, score=bic)[[4, 1], [1, 2]], 1.0)


def test_the_lasso_finds_a_parent_of_the_slice_before():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 3, 3))
    x[:, 1:, 0] = x[:, :-1, 2] + 0.1 * x[:, 1:, 0]
    for beside in (False, True):
        found = lasso.selected(x, beside=beside, one_error=True)
        assert np.isnan(found[:3]).all()
        assert found[3:, 0].tolist() == [0, 0, 1]


def test_one_standard_error_is_above_the_best_penalty():
    cv = LassoCV(alphas=[1.0, 0.5, 0.1])
    cv.alphas_ = np.array([1.0, 0.5, 0.1])
    cv.mse_path_ = np.array([[5.0, 5.0, 5.0, 5.0, 5.0], [1.3, 1.1, 1.2, 1.2, 1.2], [0.5, 1.5, 1.0, 0.8, 1.2]])
    assert lasso._largest(cv) == 1.0 * 0.1  # 1.2 is more than one standard error of 0.17 above 1
    cv.mse_path_[1] -= 0.1
    assert lasso._largest(cv) == 0.5


def test_completion_keeps_what_was_seen():
    problem = cases.simulated(cases.WITHIN, 4, 0, cases.Settings(rows=20, slices=3))
    seen = problem.seen.numpy()
    known = ~np.isnan(seen)
    for complete in (baselines.by_means, baselines.by_regressions):
        filled = complete(seen)
        np.testing.assert_allclose(filled[known], seen[known])
        assert np.isfinite(filled).all()
    # A variable that is another's double is completed as such.
    seen[..., 1] = 2 * seen[..., 0]
    seen[:5, :, 1] = np.nan
    gone = np.isnan(seen[..., 1]) & ~np.isnan(seen[..., 0])
    np.testing.assert_allclose(baselines.by_regressions(seen)[..., 1][gone], 2 * seen[..., 0][gone], atol=0.05)


def test_networks_without_edges_within_a_slice_stay_bounded():
    settings = cases.Settings(rows=10, slices=3)
    for seed in range(5):
        both = [cases.simulated(network, 8, seed, settings) for network in (cases.WITHIN, cases.LAGS)]
        assert both[0].template.inter == both[1].template.inter
        assert both[0].template.intra and not both[1].template.intra
        gain = cases._gain(both[1].template, both[1].truth)
        assert float(torch.linalg.eigvals(gain).abs().max()) <= cases.LARGEST + 1e-12
        assert torch.equal(both[0].seen.isnan(), both[1].seen.isnan())
        noise = (both[1].seen - both[1].clean).nan_to_num()
        assert 0.2 < float(noise.std()) < 0.4
        table = cases.true_edges(both[0].template)
        assert np.nansum(table[:8]) == len(both[0].template.intra)
        assert np.nansum(table[8:]) == len(both[0].template.inter)


def test_precision_recall_and_their_mean():
    part = pd.DataFrame({"probability": [0.9, 0.8, 0.6, 0.2], "true": [True, False, True, True]})
    found = edges._agreement(part)
    assert found == {"precision": 2 / 3, "recall": 2 / 3, "F1": pytest.approx(2 / 3)}
    assert math.isnan(edges._agreement(part.assign(probability=0.1))["precision"])


def records(ours, theirs):
    """Two networks of a single size, an edge true and one absent; stated by the posterior and by another method."""
    rows = []
    for network, seed, within in itertools.product((cases.WITHIN, cases.LAGS), (0, 1), (True, False)):
        for true, method in itertools.product((True, False), (*edges.NAMES.values(), "climbing")):
            probability = (theirs if method == "climbing" else ours)[0 if true else 1]
            if method == edges.NAMES[edges.BETWEEN] and within:
                continue
            rows.append({"network": network, "V": 24, "seed": seed, "method": method, "within": within, "true": true})
            rows[-1] |= {"probability": probability, "seconds": 10.0}
    return pd.DataFrame(rows)


@pytest.mark.parametrize(("ours", "theirs", "met"), [((0.97, 0.02), (1, 1), True), ((0.4, 0.0), (1, 0), False)])
def test_a_method_that_wins_is_named(ours, theirs, met):
    found = records(ours, theirs)
    compared = pd.DataFrame({"largest difference": [0.01]})
    some = pd.DataFrame(edges._claims(found, edges._by_network(found), compared, smoke=False))
    of_others = some[some["claim"].str.contains("less the best other")]
    assert of_others["met"].eq(met).all() and of_others["measured"].str.contains("climbing").all()
    assert some[some["claim"].str.contains("two runs")]["met"].all()
