"""Template networks: what is refused, and linear-Gaussian ones against the joint Gaussian of the unrolled sequence."""

import dataclasses
import functools

import numpy as np
import pytest
import torch
from scipy import stats
from torch.func import vmap

from bayesdd import Task, dbn
from bayesdd.dbn.likelihood import model_of, unconstrain
from bayesdd.dbn.likelihood.ancestral import gaussian_sequences
from bayesdd.dbn.likelihood.densities import densities_of
from bayesdd.dbn.likelihood.gaussian import complete
from bayesdd.dbn.likelihood.missing import by_pattern, filtered, static_density
from bayesdd.dbn.template.columns import columns
from bayesdd.dbn.template.template import Template

PLAIN = Template(
    variables=("c", "a", "b"),  # not in topological order
    static=("t", "s"),
    intra=(("s", "t"), ("s", "a"), ("a", "b"), ("t", "c"), ("b", "c")),
    inter=(("a", "a"), ("c", "a"), ("b", "b"), ("c", "b")),
)
NOISY = dataclasses.replace(PLAIN, noise={"a": 0.3, "c": 0.7, "s": 0.4})
UNKNOWN = dataclasses.replace(PLAIN, noise_site="error", noise_scale=0.5)
FIRST = dataclasses.replace(NOISY, initial=(("t", "a"), ("a", "c")))
SMALL = Template(("b", "a"), static=("s",), intra=(("s", "a"), ("a", "b")), inter=(("a", "a"), ("b", "a")))
SMALL_UNKNOWN = dataclasses.replace(SMALL, noise_site="error", noise_scale=0.5)


def parameters(template, count=3, seed=0):
    """Draws at which every coefficient matters and sequences stay bounded: site -> (count, *shape)."""
    generator = torch.Generator().manual_seed(seed)
    found = {}
    for site, shape in template.sites.items():
        value = torch.randn(count, *shape, generator=generator, dtype=torch.float64)
        found[site] = 0.4 * value if shape else 0.3 + 0.5 * value.abs()
    return found


def rows(template, count, slices, missing=0.0, seed=0):
    data = dbn.simulate(template, {k: v[0] for k, v in parameters(template).items()}, count, slices, seed)
    generator = torch.Generator().manual_seed(seed + 1)
    for column in data.values():
        column[torch.rand(column.shape, generator=generator) < missing] = torch.nan
    return data


@functools.cache
def small_task(name):
    """Tasks take a second each to build: one each of complete rows, two noisy sources, and any missing entries."""
    if name == "complete":
        return dbn.task(SMALL, rows(SMALL, 40, 3))
    if name == "any":
        return Task(model_of(SMALL), rows(SMALL, 40, 3, missing=0.3))
    data = rows(SMALL_UNKNOWN, 40, 3)
    data["x"][::2, :, 1], data["static"][1::2, 0] = torch.nan, torch.nan
    return dbn.task(SMALL_UNKNOWN, data)


def unrolled(template, values, slices):
    """Moments of all entries, node by node from the edges as written; nodes: static names, then (name, slice)."""
    nodes, mean, cov = [], [], np.zeros((0, 0))

    def add(node, site, parents):
        nonlocal cov
        slopes, at = values[site].numpy(), [nodes.index(parent) for parent in parents]
        cross = slopes[1:] @ cov[at] if at else np.zeros(len(nodes))
        own = float(values[f"{site}_variance"]) + (slopes[1:] @ cross[at] if at else 0.0)
        cov = np.block([[cov, cross[:, None]], [cross[None], np.array([[own]])]])
        mean.append(slopes[0] + sum(b * mean[i] for b, i in zip(slopes[1:], at, strict=True)))
        nodes.append(node)

    for name in ("s", "t"):
        add(name, name, [a for a, b in template.intra if b == name])
    for t in range(slices):
        for name in ("a", "b", "c"):
            edges = template.intra if t or template.initial is None else template.initial
            parents = [a if a in template.static else (a, t) for a, b in edges if b == name]
            parents += [(a, t - 1) for a, b in template.inter if b == name] if t else []
            add((name, t), name if t else f"{name}_initial", parents)
    noise = [template.noise_of(node if isinstance(node, str) else node[0]) for node in nodes]
    if template.noise_site:
        noise = [float(values[template.noise_site])] * len(nodes)
    return nodes, np.array(mean), cov + np.diag(np.square(noise))


def brute_force(template, values, data):
    nodes, mean, cov = unrolled(template, values, data["x"].shape[1])
    static = [nodes.index(name) for name in template.static]
    dynamic = [nodes.index((name, t)) for t in range(data["x"].shape[1]) for name in template.variables]
    order = static + dynamic
    mean, cov = mean[order], cov[np.ix_(order, order)]
    found = []
    for row in torch.cat([data["static"], data["x"].flatten(1)], 1).numpy():
        seen = ~np.isnan(row)
        normal = stats.multivariate_normal(mean[seen], cov[np.ix_(seen, seen)]) if seen.any() else None
        found.append(normal.logpdf(row[seen]) if normal else 0.0)
    return np.array(found)


def by_filter(template, draws, data):
    x, static = columns(template, data)
    return vmap(lambda v: filtered(template, v, x, static) + static_density(template, v, static))(draws)


@pytest.mark.parametrize("template", [PLAIN, NOISY, UNKNOWN, FIRST], ids=["plain", "noisy", "unknown", "first"])
@pytest.mark.parametrize("slices", [1, 4])
@pytest.mark.parametrize("missing", [0.0, 0.4])
@pytest.mark.parametrize("method", [dbn.log_likelihood, by_filter])
def test_log_likelihood_is_that_of_the_unrolled_joint_gaussian(template, slices, missing, method):
    draws, data = parameters(template), rows(template, 12, slices, missing)
    if missing:
        data["x"][3], data["static"][3] = torch.nan, torch.nan
    theirs = [brute_force(template, {k: v[s] for k, v in draws.items()}, data) for s in range(3)]
    np.testing.assert_allclose(method(template, draws, data).numpy(), theirs, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ["complete", "sources", "any"])
def test_task_scores_rows_as_the_template_does_and_its_prior_is_normal_inverse_gamma(name):
    task, template = small_task(name), SMALL_UNKNOWN if name == "sources" else SMALL
    draws = parameters(template)
    free = unconstrain(template, draws)
    assert task.backend == "graph"
    torch.testing.assert_close(task.constrain(free), draws)
    torch.testing.assert_close(task.log_likelihood(task.data, free), dbn.log_likelihood(template, draws, task.data))
    theirs = np.zeros(3)
    for site, shape in template.sites.items():
        value = draws[site].numpy()
        if site == "error":
            theirs += stats.halfnorm(scale=0.5).logpdf(value) + np.log(value)
        elif shape:
            spread = 3 * np.sqrt(draws[f"{site}_variance"].numpy())[:, None]
            theirs += stats.norm(0, spread).logpdf(value).sum(1)
        else:
            theirs += stats.invgamma(2, scale=1).logpdf(value) + np.log(value)
    np.testing.assert_allclose(task.log_prior(free).numpy(), theirs, rtol=1e-10)


def test_a_task_takes_complete_rows_and_rows_of_its_own_patterns_and_the_model_takes_any():
    draws, free = parameters(SMALL_UNKNOWN), unconstrain(SMALL_UNKNOWN, parameters(SMALL_UNKNOWN))
    task, whole, strange = small_task("sources"), rows(SMALL, 40, 3), rows(SMALL, 40, 3, missing=0.5, seed=7)
    assert task.model.keywords["likelihood"].sequences.func is by_pattern
    torch.testing.assert_close(task.log_likelihood(whole, free), dbn.log_likelihood(SMALL_UNKNOWN, draws, whole))
    known = (~torch.cat([strange["static"], strange["x"].flatten(1)], 1).isnan()).all(1)
    assert torch.equal(task.log_likelihood(strange, free).isnan().all(0), ~known)
    task, draws = small_task("any"), parameters(SMALL)
    free = unconstrain(SMALL, draws)
    for given in (whole, strange):
        torch.testing.assert_close(
            task.log_likelihood(given, free), dbn.log_likelihood(SMALL, parameters(SMALL), given)
        )


def test_the_density_is_chosen_by_what_the_rows_need():
    def density(template, data):
        found = densities_of(template).chosen(template, *columns(template, data)).sequences
        return getattr(found, "func", found)

    assert density(PLAIN, rows(PLAIN, 20, 3)) is complete
    assert density(NOISY, rows(NOISY, 20, 3)) is by_pattern
    assert density(PLAIN, rows(PLAIN, 20, 3, missing=0.5)) is by_pattern
    assert density(PLAIN, rows(PLAIN, 80, 3, missing=0.5)) is filtered


def test_sequences_padded_by_missing_slices_score_as_the_shorter_ones():
    draws, short = parameters(PLAIN), rows(PLAIN, 10, 2)
    padding = torch.full((10, 3, 3), torch.nan, dtype=torch.float64)
    padded = short | {"x": torch.cat([short["x"], padding], 1)}
    torch.testing.assert_close(dbn.log_likelihood(PLAIN, draws, padded), dbn.log_likelihood(PLAIN, draws, short))


def test_gradients_in_rows_are_zero_where_they_are_missing_and_those_of_the_density_elsewhere():
    task, data = small_task("any"), rows(SMALL, 40, 3, missing=0.4)
    free = unconstrain(SMALL, parameters(SMALL))[:1]

    def score(x, static):
        return task.log_likelihood({"x": x, "static": static}, free).sum()

    x, static = (data[name].clone().requires_grad_() for name in ("x", "static"))
    slopes = torch.autograd.grad(score(x, static), [x, static])
    for slope, column in zip(slopes, (data["x"], data["static"]), strict=True):
        assert (slope[column.isnan()] == 0).all()
    at = tuple((~data["x"].isnan()).nonzero()[3])
    step = torch.zeros_like(data["x"])
    step[at] = 1e-5
    numeric = (score(data["x"] + step, data["static"]) - score(data["x"] - step, data["static"])) / 2e-5
    torch.testing.assert_close(slopes[0][at], numeric, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("template", [PLAIN, NOISY], ids=["plain", "noisy"])
def test_simulated_rows_have_the_moments_of_the_unrolled_joint_gaussian(template):
    values, count = {k: v[0] for k, v in parameters(template).items()}, 20_000
    data = dbn.simulate(template, values, count, 3, seed=1)
    nodes, mean, cov = unrolled(template, values, 3)
    static = [data["static"][:, template.static.index(node)] for node in nodes[:2]]
    found = np.stack([*static, *(data["x"][:, t, template.variables.index(name)] for name, t in nodes[2:])], 1)
    spread = np.sqrt(np.diag(cov))
    assert (np.abs(found.mean(0) - mean) < 4.5 * spread / count**0.5).all()
    # Var of a sample covariance: (C_ii C_jj + C_ij^2) / count.
    error = np.sqrt((np.outer(spread, spread) ** 2 + cov**2) / count)
    assert (np.abs(np.cov(found.T) - cov) < 4.5 * error).all()


def test_sequences_simulated_given_noisy_and_missing_static_values_follow_their_conditional():
    values, count = {k: v[0] for k, v in parameters(NOISY).items()}, 20_000
    nodes, mean, cov = unrolled(NOISY, values, 1)
    given = torch.tensor([[torch.nan, 1.5]], dtype=torch.float64).expand(count, -1)  # t unknown, s measured
    found = gaussian_sequences(NOISY, values, given, 1, torch.Generator().manual_seed(0))[:, 0].numpy()
    s, rest = nodes.index("s"), [nodes.index((name, 0)) for name in NOISY.variables]
    gain = cov[rest, s] / cov[s, s]
    spread = np.sqrt(np.diag(cov)[rest] - gain * cov[s, rest])
    assert (np.abs(found.mean(0) - (mean[rest] + gain * (1.5 - mean[s]))) < 4.5 * spread / count**0.5).all()
    assert (np.abs(found.std(0) / spread - 1) < 4.5 / (2 * count) ** 0.5).all()


def test_a_task_simulates_what_is_left_out():
    task, values = small_task("complete"), {k: v[:1] for k, v in parameters(SMALL).items()}
    drawn = task.simulate({"static": torch.ones(500, 1, dtype=torch.float64)}, values, seed=0)
    assert drawn["x"].shape == (1, 500, 3, 2)
    slopes, spread = values["a_initial"][0], values["a_initial_variance"][0].sqrt()
    a = drawn["x"][0, :, 0, 1]
    assert abs(a.mean() - slopes.sum()) < 4.5 * spread / 500**0.5


def test_posterior_is_prior_times_likelihood_of_weighted_rows():
    """log prior + weighted log-likelihood - log posterior is one number, the log evidence, at every draw."""
    task = small_task("complete")
    weight = torch.rand(40, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 3
    posterior = dbn.conjugate(SMALL, task.data, weight)
    draws = posterior.draw(5, seed=0)
    free, log_posterior = unconstrain(SMALL, draws), np.zeros(5)
    for site, family in posterior.families.items():
        variance = draws[f"{site}_variance"].numpy()
        gamma = stats.invgamma(float(family.shape), scale=float(family.scale))
        log_posterior += gamma.logpdf(variance) + np.log(variance)
        covariance = np.linalg.inv(family.precision.numpy())
        for s in range(5):
            slopes = stats.multivariate_normal(family.mean.numpy(), variance[s] * covariance)
            log_posterior[s] += slopes.logpdf(draws[site][s].numpy())
    log_joint = (task.log_prior(free) + task.log_likelihood(task.data, free) @ weight).numpy()
    np.testing.assert_allclose(np.ptp(log_joint - log_posterior), 0, atol=1e-8)


def test_posterior_draws_have_its_moments():
    posterior, count = dbn.conjugate(PLAIN, rows(PLAIN, 50, 4)), 20_000
    draws = posterior.draw(count, seed=0)
    for site, family in posterior.families.items():
        theirs = stats.invgamma(float(family.shape), scale=float(family.scale))
        ours = draws[f"{site}_variance"].numpy()
        assert abs(ours.mean() - theirs.mean()) < 4.5 * theirs.std() / count**0.5
        covariance = theirs.mean() * np.linalg.inv(family.precision.numpy())
        spread = np.sqrt(np.diag(covariance))
        assert (np.abs((draws[site].mean(0) - family.mean).numpy()) < 4.5 * spread / count**0.5).all()
        assert (np.abs(np.cov(draws[site].numpy().T) - covariance) < 0.06 * np.outer(spread, spread)).all()


def test_axes_have_names_and_labels_for_arviz():
    assert PLAIN.dims["a"] == ("a_term",)
    assert PLAIN.coords["a_term"] == ("intercept", "s", "a_before", "c_before")
    assert PLAIN.coords["a_initial_term"] == ("intercept", "s")
    assert PLAIN.dims["a_variance"] == ()
    assert all(len(PLAIN.dims[site]) == len(shape) for site, shape in PLAIN.sites.items())


AB = {"variables": ("a", "b")}
REFUSED = {
    "circle": (AB | {"intra": (("a", "b"), ("b", "a"))}, "in a circle, a -> b -> a|in a circle, b -> a -> b"),
    "self": (AB | {"intra": (("a", "a"),)}, "in a circle, a -> a"),
    "circle with the first slice": (AB | {"intra": (("a", "b"),), "initial": (("b", "a"),)}, "in a circle"),
    "first slice into static": (AB | {"static": ("s",), "initial": (("a", "s"),)}, "ends in the static variable 's'"),
    "unknown": (AB | {"inter": (("a", "q"),)}, r"the inter edge \('a', 'q'\) names 'q', which is none of"),
    "edge twice": (AB | {"inter": (("a", "b"), ("a", "b"))}, r"the inter edge \('a', 'b'\) is given twice"),
    "name twice": ({"variables": ("a", "a")}, "variable 'a' is named twice"),
    "static name": (AB | {"static": ("a",)}, "variable 'a' is named twice"),
    "no variable": ({"variables": ()}, "at least one variable"),
    "no pair": (AB | {"intra": (("a",),)}, "edges are pairs"),
    "a lag within": (AB | {"intra": (("a", "b", 2),)}, r"longer lags, \(parent, child, lag\), are for inter="),
    "a lag of none": (AB | {"inter": (("a", "a", 0),)}, r"whole number of slices, 1 or more, got \('a', 'a', 0\)"),
    "half a lag": (AB | {"inter": (("a", "a", 1.5),)}, r"whole number of slices, 1 or more, got \('a', 'a', 1.5\)"),
    "a lag of truth": (
        AB | {"inter": (("a", "a", True),)},
        r"whole number of slices, 1 or more, got \('a', 'a', True\)",
    ),
    "lags": (AB | {"inter": (("a", "a", np.array([1, 2])),)}, "whole number of slices, 1 or more, got"),
    "a parent's name": (
        {"variables": ("a", "a_before_2"), "inter": (("a", "a", 2),), "intra": (("a_before_2", "a"),)},
        "two parents of one variable would be called 'a_before_2'",
    ),
    "a variance's name": (
        {"variables": ("a", "a_variance", "u"), "states": {"u": 2}},
        "two latent sites would be called",
    ),
    "an edge twice": (AB | {"inter": (("a", "a"), ("a", "a", 1))}, r"inter edge \('a', 'a'\) is given twice"),
    "a slice's site": (
        {"variables": ("a", "a_slice_1"), "inter": (("a", "a", 2),)},
        "two latent sites would be called",
    ),
    "static inter": (AB | {"static": ("s",), "inter": (("s", "a"),)}, "static variable 's', which has no slices"),
    "into static": (AB | {"static": ("s",), "intra": (("a", "s"),)}, "ends in the static variable 's'"),
    "states of none": (AB | {"states": {"a": 2, "b": 2, "q": 2}}, "states= names 'q'"),
    "one state": (AB | {"states": {"a": 2, "b": 1}}, "variable 'b' needs at least two states, got 1"),
    "column": ({"variables": ("x", "y")}, "a latent site would be called 'x'"),
    "site twice": ({"variables": ("a", "a_initial")}, "two latent sites would be called 'a_initial'"),
    "noise of states": (AB | {"states": {"a": 2, "b": 2}, "noise": 0.1}, "measurement noise is for linear-Gaussian"),
    "noise of none": (AB | {"noise": {"q": 0.1}}, "noise= names 'q'"),
    "negative noise": (AB | {"noise": -0.1}, "not negative"),
    "two noises": (AB | {"noise": 0.1, "noise_site": "e"}, "give one of them"),
    "setting": (AB | {"variance_scale": 0.0}, "variance_scale= must be positive"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_makes_no_template_is_refused_in_one_line(case):
    settings, message = REFUSED[case]
    with pytest.raises(ValueError, match=message) as error:
        Template(**settings)
    assert "\n" not in str(error.value)


def test_rows_and_parameters_that_do_not_fit_are_refused_in_one_line():
    template, x = Template(("a", "b"), inter=(("a", "a"),)), torch.zeros(5, 3, 2)
    with pytest.raises(ValueError, match=r"needs the columns \['x'\], got \['static', 'x'\]"):
        dbn.task(template, {"x": x, "static": torch.zeros(5, 1)})
    with pytest.raises(ValueError, match=r"of shape \(rows, slices, 2\), last axis \['a', 'b'\], got \(5, 3\)"):
        dbn.task(template, {"x": x[..., 0]})
    with pytest.raises(ValueError, match="column 'static' of shape"):
        dbn.conjugate(PLAIN, {"x": torch.zeros(5, 3, 3), "static": torch.zeros(5, 3)})
    with pytest.raises(ValueError, match="needs a value of site 'a_initial_variance'"):
        dbn.simulate(template, {}, 3, 2, seed=0)
    wrong = parameters(template) | {"a": torch.zeros(3, 7)}
    with pytest.raises(ValueError, match=r"site 'a' of shape \('S', 2\), got \(3, 7\)"):
        dbn.log_likelihood(template, wrong, {"x": x})
    with pytest.raises(ValueError, match="closed form for complete rows"):
        dbn.conjugate(PLAIN, rows(PLAIN, 5, 3, missing=0.5))
    with pytest.raises(ValueError, match="closed form for complete rows"):
        dbn.conjugate(NOISY, rows(NOISY, 5, 3))
    with pytest.raises(ValueError, match="gibbs draws tables of categorical"):
        dbn.gibbs(template, {"x": x})
