"""Mixed templates: the exact density against an enumeration of states and joint Gaussians built edge by edge."""

import itertools

import numpy as np
import pytest
import torch
from scipy import stats

import bayesdd
from bayesdd import dbn
from bayesdd.dbn import Template
from bayesdd.dbn.likelihood import unconstrain

MIXED = Template(
    ("b", "stage", "a"),
    static=("age", "sex"),
    intra=(("sex", "stage"), ("stage", "a"), ("sex", "a"), ("a", "b"), ("sex", "age"), ("age", "b")),
    inter=(("a", "a"), ("stage", "stage"), ("stage", "b")),
    states={"stage": 3, "sex": ("f", "m")},
)


def parameters(template, count=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    found = {}
    for site, shape in template.sites.items():
        value = torch.randn(count, *shape, generator=generator, dtype=torch.float64)
        if site.removesuffix("_initial") in template.states:
            found[site] = value.softmax(-1)
        else:
            found[site] = 0.5 * value if shape else 0.3 + 0.5 * value.abs()
    return found


def data(count=10, slices=3, missing=0.35, seed=0, template=MIXED):
    rows = dbn.simulate(template, {k: v[0] for k, v in parameters(template).items()}, count, slices, seed)
    generator = torch.Generator().manual_seed(seed + 1)
    for column in rows.values():
        column[torch.rand(column.shape, generator=generator) < missing] = torch.nan
    return rows


def density(values, x, static):
    """p(row) at one draw: over all states of sex and of three stages, Gaussians of (age, a0, b0, a1, b1, ...)."""
    slices, total = len(x), 0.0
    v = {site: np.asarray(value) for site, value in values.items()}
    for sex, *stage in itertools.product(range(2), *[range(3)] * slices):
        p = v["sex"][sex] * v["stage_initial"][sex, stage[0]]
        for t in range(1, slices):
            p *= v["stage"][sex, stage[t - 1], stage[t]]
        seen = [(static[1], sex), *zip(x[:, 1], stage, strict=True)]
        if any(not np.isnan(given) and given != state for given, state in seen):
            continue
        n = 1 + 2 * slices  # age, then a and b of each slice
        slopes, shift, variance = np.zeros((n, n)), np.zeros(n), np.zeros(n)
        shift[0], variance[0] = v["age"] @ [1, sex], v["age_variance"]
        for t in range(slices):
            a, b, first = 1 + 2 * t, 2 + 2 * t, "_initial" if t == 0 else ""
            now = [float(stage[t] == 1), float(stage[t] == 2)]
            coefficients = v[f"a{first}"]
            shift[a], variance[a] = coefficients[:4] @ [1, *now, sex], v[f"a{first}_variance"]
            own = v[f"b{first}"]  # intercept, a, age, and two indicators of the stage before
            shift[b], variance[b] = own[0], v[f"b{first}_variance"]
            slopes[b, a], slopes[b, 0] = own[1], own[2]
            if t:
                slopes[a, a - 2] = coefficients[4]
                shift[b] += own[3:] @ [float(stage[t - 1] == 1), float(stage[t - 1] == 2)]
        root = np.linalg.inv(np.eye(n) - slopes)
        mean, cov = root @ shift, root @ np.diag(variance) @ root.T
        flat = np.concatenate([[static[0]], np.stack([x[:, 2], x[:, 0]], 1).ravel()])
        known = ~np.isnan(flat)
        normal = stats.multivariate_normal(mean[known], cov[np.ix_(known, known)]) if known.any() else None
        total += p * (normal.pdf(flat[known]) if normal else 1.0)
    return np.log(total)


def test_log_likelihood_is_that_of_an_enumeration():
    draws, rows = parameters(MIXED), data()
    rows["x"][0], rows["static"][0] = torch.nan, torch.nan
    pairs = [(x.numpy(), static.numpy()) for x, static in zip(*rows.values(), strict=True)]
    theirs = [[density({k: v[s] for k, v in draws.items()}, *pair) for pair in pairs] for s in range(2)]
    np.testing.assert_allclose(dbn.log_likelihood(MIXED, draws, rows), theirs, rtol=1e-9, atol=1e-9)


def test_a_task_scores_rows_as_the_template_does():
    draws, rows = parameters(MIXED), data(missing=0.0)
    rows["x"][:4, 1, 2], rows["static"][:3, 1] = torch.nan, torch.nan
    task, free = dbn.task(MIXED, rows), unconstrain(MIXED, draws)
    torch.testing.assert_close(task.constrain(free), draws)
    torch.testing.assert_close(task.log_likelihood(task.data, free), dbn.log_likelihood(MIXED, draws, rows))
    prior = sum(
        stats.invgamma(2, scale=1).logpdf(value.numpy()) if not MIXED.sites[site] else 0.0
        for site, value in draws.items()
    )
    assert np.isfinite(prior).all() and bayesdd.Task is type(task)


def test_names_of_coefficients_and_states():
    assert MIXED.sites["a"] == (5,) and MIXED.sites["stage"] == (2, 3, 3)
    assert MIXED.coords["a_term"] == ("intercept", "stage=1", "stage=2", "sex=m", "a_before")
    assert MIXED.coords["b_term"][3:] == ("stage=1_before", "stage=2_before")
    assert "mixed" in str(MIXED) and MIXED.coords["sex_state"] == ("f", "m")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"terminal": "a"}, "terminal='a' must be a categorical variable that changes over time"),
        ({"terminal": "stage", "inter": (("stage", "a"),)}, "leaves the terminal variable 'stage', after whose end"),
        ({"noise_site": "error"}, "an unknown noise, noise_site=, needs linear-Gaussian variables alone"),
    ],
)
def test_what_mixed_templates_cannot_say_is_refused(change, message):
    settings = {"variables": ("a", "stage"), "states": {"stage": 3}} | change
    with pytest.raises(ValueError, match=message):
        Template(**settings)
