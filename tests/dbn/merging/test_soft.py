"""Merging categorical sources: soft categories against sums over hard ones, and their export."""

import functools
import itertools

import numpy as np
import pytest
import torch
from scipy.special import gammaln

import bayesdd
from bayesdd import CertificateWarning, Distilled, dbn
from bayesdd.dbn import harden, merge, overstated
from bayesdd.dbn.inference import Pooled, inference_data, labelled, pooled
from bayesdd.dbn.likelihood import unconstrain
from bayesdd.dbn.likelihood.categorical import expected_counts
from bayesdd.dbn.likelihood.source import Source
from bayesdd.dbn.merging.hardening import _copies, _stratified
from bayesdd.dbn.merging.soft import Dirichlets
from bayesdd.dbn.template.template import Template
from bayesdd.task.provenance import check

TINY = Template(
    ("b", "a"),
    static=("s",),
    intra=(("s", "a"), ("a", "b")),
    inter=(("a", "a"), ("b", "a")),
    states={"a": 3, "b": 2, "s": 2},
)


def tables(count=1, seed=0):
    generator = torch.Generator().manual_seed(seed)
    found = {}
    for site, shape in TINY.sites.items():
        gamma = torch._standard_gamma(torch.ones(count, *shape, dtype=torch.float64), generator=generator)
        found[site] = gamma / gamma.sum(-1, keepdim=True)
    return found


def rows(count, slices, seed=0):
    return dbn.simulate(TINY, {site: value[0] for site, value in tables().items()}, count, slices, seed)


def soft(count, slices, seed=0):
    """Random probabilities; the third state of b and s does not exist."""
    generator = torch.Generator().manual_seed(seed)

    def column(names, *lead):
        raw = torch.rand(*lead, len(names), 3, generator=generator, dtype=torch.float64)
        states = torch.tensor([TINY.states[name] for name in names])[:, None]
        raw = raw * (torch.arange(3) < states)
        return raw / raw.sum(-1, keepdim=True)

    return {"x": column(TINY.variables, count, slices), "static": column(TINY.static, count)}


def one_hot(data):
    return {name: torch.nn.functional.one_hot(column, 3).double() for name, column in data.items()}


def test_soft_rows_of_certain_states_are_hard_rows():
    data, weight = rows(9, 3), torch.linspace(0.4, 2, 9, dtype=torch.float64)
    ours, theirs = (dbn.conjugate(TINY, some, weight).families for some in (one_hot(data), data))
    for site, family in theirs.items():
        torch.testing.assert_close(ours[site].concentration, family.concentration)
    draws = tables(4, seed=2)
    student = dbn.student(TINY, 3, soft=True)
    found = student.log_likelihood(one_hot(data), unconstrain(TINY, draws))
    torch.testing.assert_close(found, dbn.log_likelihood(TINY, draws, data))


def test_soft_rows_are_the_mean_over_their_hard_rows():
    data, draws = soft(1, 2), tables(3, seed=1)
    ours = dbn.student(TINY, 2, soft=True).log_likelihood(data, unconstrain(TINY, draws))[:, 0]
    total = torch.zeros(3, dtype=torch.float64)
    counts = 0.0
    entries = [("b", 0), ("a", 0), ("b", 1), ("a", 1), ("s", None)]
    for states in itertools.product(*(range(TINY.states[name]) for name, _ in entries)):
        x, static = torch.tensor(states[:4]).reshape(1, 2, 2), torch.tensor(states[4:])[None]
        share = (
            data["static"][0, 0, states[4]]
            * torch.stack(
                [
                    data["x"][0, t, TINY.variables.index(name), k]
                    for (name, t), k in zip(entries[:4], states[:4], strict=True)
                ]
            ).prod()
        )
        hard = {"x": x, "static": static}
        total += share * dbn.log_likelihood(TINY, draws, hard)[:, 0]
        concentrations = [family.concentration.flatten() for family in dbn.conjugate(TINY, hard).families.values()]
        counts = counts + share * (torch.cat(concentrations) - TINY.pseudo_count)
    torch.testing.assert_close(ours, total)
    torch.testing.assert_close(expected_counts(TINY, data["x"], data["static"], torch.ones(1).double()), counts)


def log_density(posterior, draws):
    """Of independent Dirichlets, up to nothing, at draws."""
    total = 0.0
    for site, family in posterior.families.items():
        alpha, value = family.concentration.numpy(), draws[site].numpy()
        terms = ((alpha - 1) * np.log(value)).sum(-1) + gammaln(alpha.sum(-1)) - gammaln(alpha).sum(-1)
        total = total + terms.reshape(len(value), -1).sum(1)
    return total


def test_excess_is_the_expected_log_density_that_rows_lose_and_zero_at_the_best():
    draws = dbn.conjugate(TINY, rows(40, 3)).draw(300, seed=0)
    goal = Dirichlets(TINY, torch.cat([draws[site].log().mean(0).flatten() for site in TINY.sites]))
    first, second = (dbn.conjugate(TINY, rows(20, 3, seed)) for seed in (1, 2))

    def excess(posterior):
        alpha = torch.cat([family.concentration.flatten() for family in posterior.families.values()])
        return float(goal.excess(alpha - TINY.pseudo_count))

    theirs = (log_density(second, draws) - log_density(first, draws)).mean()
    np.testing.assert_allclose(excess(first) - excess(second), theirs, rtol=1e-9)
    assert excess(first) > 0
    exact = torch.cat([family.concentration.flatten() for family in first.families.values()])
    own = [
        torch.digamma(f.concentration) - torch.digamma(f.concentration.sum(-1, keepdim=True))
        for f in first.families.values()
    ]
    at_own = Dirichlets(TINY, torch.cat([logs.flatten() for logs in own])).excess(exact - TINY.pseudo_count)
    assert abs(float(at_own)) < 1e-6


@functools.cache
def merged():
    data = {name: column.double() for name, column in rows(120, 4).items()}
    sources = [
        Source({name: column[:60] for name, column in data.items()}, ("a", "s")),
        Source({name: column[60:] for name, column in data.items()}),
    ]
    full = pooled(TINY, sources, draws=1500)
    return full, merge(TINY, sources, size=25, complete=True, full=full)


@pytest.mark.long
def test_complete_rows_have_the_posterior_of_incomplete_sources():
    full, found = merged()
    assert found.data["x"].shape == (25, 4, 2, 3) and found.data["static"].shape == (25, 1, 3)
    assert found.provenance["excess"] < 0.3 and found.provenance["apart"] == []
    table = overstated(full, found)
    assert ((table["mean_distilled"] - table["mean"]).abs() < 0.3 * table["sd"] + 0.01).all()
    assert "a[0, 1, 0, 2]" in table.index


def test_hard_rows_cost_what_they_say():
    full, found = merged()
    hard = harden(full, found, size=200)
    assert hard.data["x"].dtype == torch.int64 and len(hard) == 200
    goal = Dirichlets(TINY, full.statistics)
    alpha = torch.cat(
        [f.concentration.flatten() for f in dbn.conjugate(TINY, hard.data, hard.weight).families.values()]
    )
    excess = float(goal.excess(alpha - TINY.pseudo_count))
    np.testing.assert_allclose(hard.provenance["excess"], excess, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(hard.provenance["rounding"], excess - found.provenance["excess"], atol=1e-9)
    assert excess < 1.0
    check(hard, dbn.student(TINY, 4))
    with pytest.raises(ValueError, match="ask for 25 or more, not 10"):
        harden(full, found, size=10)
    with pytest.raises(ValueError, match="soft categories"):
        harden(full, hard, size=300)


@pytest.mark.long
def test_changing_entries_only_helps():
    """Rows drawn from even soft ones, of a posterior that is not even."""
    full, found = merged()
    even = one_hot(rows(25, 4))
    even = {name: column * 0 + found.data[name].gt(0).double() for name, column in even.items()}
    even = {name: column / column.sum(-1, keepdim=True) for name, column in even.items()}
    before = float(
        Dirichlets(TINY, full.statistics).excess(expected_counts(TINY, even["x"], even["static"], found.weight))
    )
    hard = harden(full, Distilled(even, found.weight, provenance={"excess": before}), size=50)
    assert hard.provenance["excess"] < before
    states = torch.tensor([TINY.states[name] for name in TINY.variables])
    assert hard.data["x"].dtype == torch.int64 and bool(((hard.data["x"] >= 0) & (hard.data["x"] < states)).all())
    assert hard.provenance["rounding"] == hard.provenance["excess"] - before


def test_copies_of_a_soft_row_have_its_states_by_their_probability():
    weight = torch.tensor([1.0, 3.0, 6.0], dtype=torch.float64)
    row = _copies(weight, 103)
    assert torch.bincount(row).tolist() == [11, 31, 61]
    every = soft(3, 1)["x"].flatten(1, 2)
    picked = _stratified(every, row, torch.Generator().manual_seed(0))
    for k in range(3):
        found = torch.nn.functional.one_hot(picked[row == k], 3).double().mean(0)
        assert ((found - every[k]).abs() <= 1 / torch.bincount(row)[k] + 1e-12).all()


def test_masked_rows_are_the_sources_own():
    full, _ = merged()
    with pytest.warns(CertificateWarning, match="more rows come closer"):
        found = merge(TINY, full.sources, size=10, full=full)
    real = torch.cat([x for x, _ in full.rows])
    assert all((torch.isclose(row, real, equal_nan=True).all((1, 2))).any() for row in found.data["x"])
    closer = merge(TINY, full.sources, size=60, full=full)
    assert closer.provenance["gap"]["half_variance"] < 0.2 * found.provenance["gap"]["half_variance"]


@pytest.mark.filterwarnings(
    "ignore:sample. chains disagree:bayesdd.ConvergenceWarning"
)  # 200 weighted draws of a few rows
def test_tables_carry_the_names_of_variables_and_states():
    full, found = merged()
    idata = inference_data(TINY, full.draws)
    value = idata.posterior["a"].sel(s_parent=1, a_before_parent=2, b_before_parent=0, a_state=1)
    assert float(value.mean()) == pytest.approx(float(full.draws["a"][:, 1, 2, 0, 1].mean()))
    student = dbn.student(TINY, 4, soft=True)
    check(found, student)
    drawn = bayesdd.sample(student, found, draws=200, chains=2, seed=0, method=bayesdd.inference.laplace)
    ours = labelled(TINY, drawn).posterior["b"].sel(b_state=1).mean(("chain", "draw")).values
    exact = dbn.conjugate(TINY, found.data, found.weight).families["b"].concentration
    mean = exact / exact.sum(-1, keepdim=True)
    spread = (mean * (1 - mean) / (exact.sum(-1, keepdim=True) + 1)).sqrt()
    assert (np.abs(ours - mean[..., 1].numpy()) < spread[..., 1].numpy()).all()


REFUSED = {
    "shape": ({"x": torch.ones(2, 3, 2, 2) / 2, "static": torch.ones(2, 1, 3) / 3}, "soft column 'x' of shape"),
    "sum": ({"x": torch.ones(2, 3, 2, 3), "static": torch.ones(2, 1, 3) / 3}, "needs probabilities"),
    "state": ({"x": torch.ones(2, 3, 2, 3) / 3, "static": torch.ones(2, 1, 3) / 3}, "each variable's own states"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_soft_columns_that_are_no_probabilities_are_refused_in_one_line(name):
    data, message = REFUSED[name]
    with pytest.raises(ValueError, match=message) as error:
        dbn.conjugate(TINY, data)
    assert "\n" not in str(error.value)


def test_pooled_keeps_what_it_was_given():
    full, _ = merged()
    assert isinstance(full, Pooled) and full.count == 120 and full.slices == 4 and full.rhat < 1.1 and full.chains == 4
