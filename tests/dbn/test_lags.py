"""Edges over several slices: every way of computing against a course written node by node, in plain loops."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats
from torch.func import vmap

import bayesdd
from bayesdd import dbn
from bayesdd.dbn.inference import conjugate
from bayesdd.dbn.inference.augmentation import Augmentation, augmented
from bayesdd.dbn.inference.drawing import drawn
from bayesdd.dbn.inference.marginal import Marginal
from bayesdd.dbn.inference.patterns import patterns_of
from bayesdd.dbn.likelihood import log_likelihood, model_of, unconstrain
from bayesdd.dbn.likelihood.missing import filtered, static_density
from bayesdd.dbn.template.columns import columns

# a follows itself two slices before, b follows a three before: slices 1 and 2 have families of their own.
NET = dbn.Template(
    ("b", "a"),
    static=("s",),
    intra=(("s", "a"), ("a", "b")),
    inter=(("a", "a"), ("a", "a", 2), ("b", "b"), ("a", "b", 3)),
)
NOISY = replace(NET, noise={"a": 0.4})
AR2 = dbn.Template(("a",), inter=(("a", "a"), ("a", "a", 2)))
CHAIN = dbn.Template(("u", "v"), inter=(("u", "u", 2), ("u", "v")), states={"u": 2, "v": 3})
MIXED = dbn.Template(
    ("u", "z", "end"),
    intra=(("u", "z"),),
    inter=(("u", "u", 2), ("z", "z", 2), ("z", "end", 2)),
    states={"u": 2, "end": 2},
)


def values_of(template, count=1, seed=0):
    """Draws at which every coefficient matters and sequences stay bounded: site -> (count, *shape)."""
    generator, found = torch.Generator().manual_seed(seed), {}
    for site, shape in template.sites.items():
        value = torch.randn(count, *shape, generator=generator, dtype=torch.float64)
        simplex = shape and site.split("_")[0] in template.states and site.split("_")[0] not in template.probits
        found[site] = torch.softmax(value, -1) if simplex else 0.4 * value if shape else 0.3 + 0.5 * value.abs()
    return found


def rows(template, count, slices, missing=0.0, seed=0):
    data = dbn.simulate(template, {k: v[0] for k, v in values_of(template).items()}, count, slices, seed)
    generator = torch.Generator().manual_seed(seed + 1)
    data = {name: column.double() for name, column in data.items()}
    for column in data.values():
        column[torch.rand(column.shape, generator=generator) < missing] = torch.nan
    return data


def parents(template, name, t):
    """Site and parents (name, slice) of a variable in slice t, from the edges as written."""
    within = [(a, -1 if a in template.static else t) for a, b in template.intra if b == name]
    lags = sorted((edge[2] if len(edge) == 3 else 1, edge[0]) for edge in template.inter if edge[1] == name)
    longest = max((lag for lag, _ in lags), default=1)
    site = f"{name}_initial" if t == 0 else f"{name}_slice_{t}" if t < longest else name
    return site, within + [(a, t - lag) for lag, a in lags if lag <= t]


def moments(template, values, slices):
    """Mean and covariance of all entries of a row, static ones first, and their names."""
    nodes, mean, cov = [], [], np.zeros((0, 0))

    def add(node, site, mine):
        nonlocal cov
        slopes, at = values[site].numpy(), [nodes.index(parent) for parent in mine]
        cross = slopes[1:] @ cov[at] if at else np.zeros(len(nodes))
        own = float(values[f"{site}_variance"]) + (slopes[1:] @ cross[at] if at else 0.0)
        cov = np.block([[cov, cross[:, None]], [cross[None], np.array([[own]])]])
        mean.append(slopes[0] + sum(b * mean[i] for b, i in zip(slopes[1:], at, strict=True)))
        nodes.append(node)

    for name in template.static:
        add((name, -1), name, [])
    for t in range(slices):
        for name in sorted(template.variables):  # a before b
            add((name, t), *parents(template, name, t))
    noise = [template.noise_of(name) for name, _ in nodes]
    return nodes, np.array(mean), cov + np.diag(np.square(noise))


def densities(template, values, data):
    """Log densities of rows, NaN left out."""
    slices = data["x"].shape[1]
    nodes, mean, cov = moments(template, values, slices)
    order = [nodes.index((name, -1)) for name in template.static]
    order += [nodes.index((name, t)) for t in range(slices) for name in template.variables]
    mean, cov = mean[order], cov[np.ix_(order, order)]
    flat = torch.cat([data.get("static", data["x"][:, 0, :0]), data["x"].flatten(1)], 1).numpy()
    found = []
    for row in flat:
        seen = ~np.isnan(row)
        normal = stats.multivariate_normal(mean[seen], cov[np.ix_(seen, seen)]) if seen.any() else None
        found.append(normal.logpdf(row[seen]) if normal else 0.0)
    return np.array(found)


@pytest.mark.parametrize("slices", [1, 2, 3, 6])
@pytest.mark.parametrize("template", [NET, NOISY, AR2], ids=["complete", "noisy", "of one variable"])
def test_densities_are_those_of_the_course_written_out(template, slices):
    draws = values_of(template, 3)
    for missing in (0.0, 0.3):
        data = rows(template, 12, slices, missing)
        wanted = [densities(template, {k: v[s] for k, v in draws.items()}, data) for s in range(3)]
        np.testing.assert_allclose(log_likelihood(template, draws, data), wanted, rtol=1e-10)
        x, static = columns(template, data)
        one_by_one = vmap(
            lambda v, x=x, static=static: filtered(template, v, x, static) + static_density(template, v, static)
        )
        np.testing.assert_allclose(one_by_one(draws), wanted, rtol=1e-10)


def test_simulated_rows_have_these_moments():
    values = {k: v[0] for k, v in values_of(NOISY).items()}
    data = dbn.simulate(NOISY, values, 40_000, 5, seed=3)
    nodes, mean, cov = moments(NOISY, values, 5)
    at = [nodes.index((name, t)) for t in range(5) for name in NOISY.variables]
    flat = data["x"].flatten(1)
    error = (flat.mean(0) - torch.tensor(mean[at])) / (torch.tensor(cov.diagonal()[at]) / 40_000).sqrt()
    assert float(error.abs().max()) < 4.5
    np.testing.assert_allclose(np.cov(flat.numpy().T), cov[np.ix_(at, at)], atol=0.05 * cov.diagonal().max())


def test_the_posterior_of_complete_rows_is_that_of_regressions_on_the_slices_that_have_all_parents():
    data = rows(NET, 30, 6)
    x, static = data["x"].numpy(), data["static"].numpy()
    found = conjugate(NET, data).families
    columns_of = {"b": x[:, :, 0], "a": x[:, :, 1], "s": np.repeat(static, 6, 1)}
    for site, name, slices in [
        ("a", "a", range(2, 6)),
        ("b", "b", range(3, 6)),
        ("a_slice_1", "a", [1]),
        ("b_slice_2", "b", [2]),
    ]:
        lines, y = [], []
        for t in slices:
            own, mine = parents(NET, name, t)
            assert own == site
            lines.append(np.stack([np.ones(30), *(columns_of[a][:, max(at, 0)] for a, at in mine)], 1))
            y.append(columns_of[name][:, t])
        design, y = np.concatenate(lines), np.concatenate(y)
        precision = design.T @ design + np.eye(design.shape[1]) / NET.coefficient_scale**2
        mean = np.linalg.solve(precision, design.T @ y)
        np.testing.assert_allclose(found[site].precision, precision, rtol=1e-10)
        np.testing.assert_allclose(found[site].mean, mean, rtol=1e-8)
        np.testing.assert_allclose(found[site].shape, NET.variance_shape + len(y) / 2)
        np.testing.assert_allclose(
            found[site].scale, NET.variance_scale + (y @ y - mean @ precision @ mean) / 2, rtol=1e-8
        )


def test_the_density_from_patterns_is_that_of_the_rows():
    data = rows(NOISY, 40, 5)
    data["x"][:20, :, 0], data["x"][20:, 3, 1], data["x"][:5, 4] = torch.nan, torch.nan, torch.nan
    marginal = Marginal([NOISY], patterns_of(NOISY, [columns(NOISY, data)]), 5)
    draws = values_of(NOISY, 4, seed=5)
    task = dbn.task(NOISY, data)
    points = marginal.points(draws)
    whole = task.log_prior(unconstrain(NOISY, draws)) + torch.tensor(
        np.array([densities(NOISY, {k: v[s] for k, v in draws.items()}, data).sum() for s in range(4)])
    )
    found = marginal.log_joint(points)
    np.testing.assert_allclose(found - found[0], whole - whole[0], rtol=1e-9)


def test_chains_of_augmentation_draw_from_the_posterior():
    data = rows(AR2, 120, 6)
    data["x"][:60, 2], data["x"][60:, 4:] = torch.nan, torch.nan
    noisy = replace(AR2, noise=0.3)
    patterns, generator = patterns_of(noisy, [columns(noisy, data)]), torch.Generator().manual_seed(0)
    start = Augmentation([noisy], patterns, 6).starts(8, generator)
    chains, _ = augmented([noisy], patterns, 6, start=start, draws=1500, burn=100, thin=1, generator=generator)
    by_weight = drawn([noisy], patterns, 6, draws=4000, seed=1).chains
    for site in AR2.sites:
        one, other = (found[site].flatten(0, 1) for found in (chains, by_weight))
        assert float(((one.mean(0) - other.mean(0)) / other.std(0)).abs().max()) < 0.12, site
        assert float((one.std(0) / other.std(0) - 1).abs().max()) < 0.12, site


def test_hospitals_with_different_gaps_are_merged_and_patients_forecast():
    truth = {"a_initial": [0.0], "a_slice_1": [0.0, 0.4], "a": [0.1, 0.5, 0.3]}
    truth |= {f"{site}_variance": 0.5 for site in truth}
    x = dbn.simulate(AR2, truth, 400, 7, seed=1)["x"]
    first, second = x[:200].clone(), x[200:].clone()
    first[:, 5], second[:, 1] = torch.nan, torch.nan
    full = dbn.pooled(AR2, [dbn.Source({"x": first}), dbn.Source({"x": second})], draws=2000)
    centre, spread = full.draws["a"].mean(0), full.draws["a"].std(0)
    assert bool(((centre - torch.tensor(truth["a"])).abs() < 4 * spread).all()) and full.rhat < 1.05
    masked = dbn.merge(AR2, full.sources, size=12, full=full)
    assert masked.certificate.ok, masked.certificate
    ahead = full.forecast({"x": x[:3, :5]}, 2)
    one = centre[0] + centre[1] * x[:3, 4, 0] + centre[2] * x[:3, 3, 0]
    np.testing.assert_allclose(ahead.mean[:, 0, 0], one, atol=0.02)
    set_ = full.do({"x": x[:3, :5]}, 2, {"a": [2.0, 0.0]})
    assert set_.mean[:, :, 0].tolist() == [[2.0, 0.0]] * 3


def test_complete_rows_stand_for_complete_sources():
    sources = [dbn.Source(rows(NET, 60, 6, seed=seed)) for seed in (0, 1)]
    merged = dbn.merge(NET, sources, size=12, complete=True)
    assert merged.certificate.ok, merged.certificate
    whole = {name: torch.cat([rows(NET, 60, 6, seed=seed)[name] for seed in (0, 1)]) for name in ("x", "static")}
    wanted, found = (conjugate(NET, *some).families["b"] for some in ((whole,), (merged.data, merged.weight)))
    spread = (wanted.precision.inverse().diagonal() * wanted.scale / wanted.shape).sqrt()
    assert float(((found.mean - wanted.mean) / spread).abs().max()) < 0.1


def test_a_task_is_distilled():
    task = dbn.task(AR2, rows(AR2, 60, 5))
    found = bayesdd.distill(task, size=6, seed=0, progress=False)
    assert found.certificate.ok


def states_of(template, values, row, fixed=None):
    """Probability of a row, missing entries summed out by enumeration."""
    open_ = [tuple(at) for at in np.argwhere(np.isnan(row))]
    total = 0.0
    for filled in itertools.product(*(range(template.states[template.variables[v]]) for _, v in open_)):
        whole = row.copy()
        for at, state in zip(open_, filled, strict=True):
            whole[at] = state
        total += math.exp(complete_states(template, values, whole))
    return math.log(total)


def complete_states(template, values, row):
    total = 0.0
    for t in range(len(row)):
        for v, name in enumerate(template.variables):
            site, mine = parents(template, name, t)
            index = [int(row[at, template.variables.index(a)]) for a, at in mine]
            total += math.log(float(values[site][(*index, int(row[t, v]))]))
    return total


@pytest.mark.parametrize("slices", [1, 2, 5, 6])  # of 6 the rows have more patterns than a task tells apart
def test_states_have_these_probabilities(slices):
    draws, data = values_of(CHAIN, 2), rows(CHAIN, 12, slices, missing=0.3)
    wanted = [
        [states_of(CHAIN, {k: v[s] for k, v in draws.items()}, row) for row in data["x"].numpy()] for s in range(2)
    ]
    np.testing.assert_allclose(log_likelihood(CHAIN, draws, data), wanted, rtol=1e-10)


def test_tables_are_drawn_from_their_posterior():
    """With few missing entries the posterior is a mixture of Dirichlets, one for each way to fill them."""
    data = rows(CHAIN, 6, 4)
    for row, t, v in ((0, 1, 0), (1, 2, 0), (1, 0, 0), (2, 3, 1)):
        data["x"][row, t, v] = torch.nan
    open_ = data["x"].isnan().nonzero().tolist()
    logs, means = [], []
    for filled in itertools.product(*(range(CHAIN.states[CHAIN.variables[v]]) for *_, v in open_)):
        whole = data["x"].clone()
        for at, state in zip(open_, filled, strict=True):
            whole[tuple(at)] = state
        tables = {site: one.concentration for site, one in conjugate(CHAIN, {"x": whole.long()}).families.items()}
        logs.append(sum(float((torch.lgamma(c).sum(-1) - torch.lgamma(c.sum(-1))).sum()) for c in tables.values()))
        means.append(torch.cat([(c / c.sum(-1, keepdim=True)).flatten() for c in tables.values()]))
    exact = torch.softmax(torch.tensor(logs), 0).double() @ torch.stack(means)
    chain = dbn.gibbs(CHAIN, data, draws=6000, burn=200, seed=0)
    found = torch.cat([value.mean(0).flatten() for value in chain.values()])
    assert float((found - exact).abs().max()) < 0.02


def test_mixed_rows_have_the_density_of_both_parts():
    draws, data = values_of(MIXED, 2), rows(MIXED, 6, 5)
    data["x"][0, 2, 1], data["x"][1, 4, 1] = torch.nan, torch.nan
    data["x"][:, :, 2] = 0.0
    data["x"][0:2, 1, 0] = torch.nan

    def density(values, row):
        """One row by enumeration of its states and a grid over its one missing number."""
        states = [t for t in range(5) if np.isnan(row[t, 0])]
        grid = np.linspace(-12, 12, 4001)
        numbers = [t for t in range(5) if np.isnan(row[t, 1])]
        total = 0.0
        for filled in itertools.product((0, 1), repeat=len(states)):
            u = row[:, 0].copy()
            u[states] = filled
            z = np.repeat(row[:, 1][:, None], len(grid), 1)
            z[numbers] = grid
            log = np.zeros(len(grid))
            for t in range(5):
                site, mine = parents(MIXED, "u", t)
                log += math.log(float(values[site][(*(int(u[at]) for _, at in mine), int(u[t]))]))
                for name, y in (("z", z[t]), ("end", None)):
                    site, mine = parents(MIXED, name, t)
                    slopes = values[site].numpy().reshape(-1)
                    if name == "end" and not mine:
                        log += math.log(float(stats.norm.cdf(-slopes[0])))
                        continue
                    terms = [u[at] if a == "u" else z[at] for a, at in mine]
                    mean = slopes[0] + sum(b * term for b, term in zip(slopes[1:], terms, strict=True))
                    if name == "z":
                        log += stats.norm.logpdf(y, mean, math.sqrt(float(values[f"{site}_variance"])))
                    else:
                        log += np.log(stats.norm.cdf(-mean))
            total += np.exp(log).sum() * (grid[1] - grid[0]) if numbers else np.exp(log[0])
        return math.log(total)

    found = log_likelihood(MIXED, draws, data)
    for s in range(2):
        values = {k: v[s] for k, v in draws.items()}
        np.testing.assert_allclose(found[s], [density(values, row) for row in data["x"].numpy()], rtol=2e-3)


def test_mixed_sources_are_pooled():
    data = rows(MIXED, 300, 6)
    data["x"][:100, 2, 1] = torch.nan
    full = dbn.pooled(MIXED, [dbn.Source(data)], draws=800)
    exact = conjugate(
        replace(MIXED, variables=("u", "z"), inter=MIXED.inter[:2], states={"u": 2}), {"x": data["x"][100:, :, :2]}
    )
    slopes = full.draws["z"]
    error = (slopes.mean(0) - exact.families["z"].mean) / slopes.std(0)
    assert full.rhat < 1.1 and float(error.abs().max()) < 3


def test_names_say_the_lag():
    assert NET.coords["b_term"] == ("intercept", "a", "b_before", "a_before_3")
    assert NET.coords["b_slice_2_term"] == ("intercept", "a", "b_before")
    assert "a -> b (lag 3)" in str(NET)
    draws = values_of(NET, 3)
    assert [cpd["evidence"] for cpd in dbn.cpds(NET, draws, 4) if cpd["variable"] == "b_3"] == [["a_3", "b_2", "a_0"]]
    assert '"a (t - 3)" -> "b";' in dbn.to_dot(NET) and "3 slices before" in dbn.to_dot(NET)
    said = {text.get_text() for text in bayesdd.plot_network(NET).axes[0].texts}
    assert {"3 before", "2 before", "slice before", "slice"} <= said


def test_a_lag_of_one_is_an_edge_to_the_next_slice():
    assert dbn.Template(("a",), inter=(("a", "a", 1),)) == dbn.Template(("a",), inter=(("a", "a"),))


def test_courses_too_short_for_a_lag_are_warned_of():
    with pytest.warns(
        UserWarning, match="seen more than 2 slices: the parameters of later ones stay at their prior, a"
    ):
        dbn.pooled(AR2, [dbn.Source(rows(AR2, 30, 2))], draws=100)


def test_what_no_source_has_seen_is_named():
    wide = dbn.Template(("a", "b"), inter=(("a", "a", 3),))
    x = rows(wide, 30, 6)["x"]
    x[:, 2:] = torch.nan
    with pytest.warns(UserWarning, match="more than 2 slices: .* their prior, a_slice_2, a"):
        dbn.target(wide, [dbn.Source({"x": x})])


def test_an_end_before_the_lag_leaves_no_child_of_a_static_variable():
    course = dbn.Template(("u",), static=("g",), intra=(("g", "u"),), inter=(("u", "u", 3),), states={"u": 2, "g": 2})
    x, static = torch.randint(2, (20, 3, 1)).double(), torch.randint(2, (20, 1)).double()
    static[:4] = torch.nan
    chain = dbn.gibbs(course, {"x": x, "static": static}, draws=3000, burn=100)
    # Of the last family there is nothing: its tables are draws of the prior.
    assert float((chain["u"].mean(0) - 0.5).abs().max()) < 0.05


def test_lags_may_be_whole_numbers_of_any_kind():
    assert dbn.Template(("a",), inter=(("a", "a", np.int64(2)),)) == dbn.Template(("a",), inter=(("a", "a", 2),))
    assert dbn.Template(("a",), inter=(("a", "a", np.int64(1)),)) == dbn.Template(("a",), inter=(("a", "a"),))


def test_rows_that_cannot_say_what_sources_have_seen_are_refused():
    source = dbn.Source(rows(AR2, 30, 5))
    with pytest.raises(ValueError, match=r"merge\(slices=2\) makes rows that say nothing of later slices"):
        dbn.merge(AR2, [source], size=4, complete=True, slices=2)
    with pytest.raises(ValueError, match="the template has a lag of 2: leave learn_edges=True out"):
        dbn.merge(AR2, [source], size=10, complete=True, learn_edges=True)


def test_what_looks_at_the_slice_before_alone_says_so():
    data = rows(NET, 30, 5)
    for use in (lambda: dbn.edges(NET, [dbn.Source(data)]), lambda: dbn.learn(NET, data)):
        with pytest.raises(ValueError, match="from the slice before: leave edges with a lag of 3 out"):
            use()
    with pytest.raises(ValueError, match="lags above one needs its rows"):
        model_of(CHAIN)
