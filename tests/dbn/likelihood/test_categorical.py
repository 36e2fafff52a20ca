"""Categorical template networks against enumeration of everything that is missing."""

import dataclasses
import functools
import itertools

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.special import gammaln
from torch.func import vmap

from bayesdd import dbn
from bayesdd.dbn.likelihood import categorical, elimination, messages, unconstrain
from bayesdd.dbn.likelihood.densities import densities_of
from bayesdd.dbn.likelihood.gaussian import entries
from bayesdd.dbn.template.columns import columns
from bayesdd.dbn.template.template import Template

TINY = Template(
    variables=("b", "a"),  # not in topological order
    static=("t", "s"),
    intra=(("s", "t"), ("s", "a"), ("a", "b"), ("t", "b")),
    inter=(("a", "a"), ("b", "a"), ("b", "b")),
    states={"a": 3, "b": 2, "s": 2, "t": 3},
)
FIRST = dataclasses.replace(TINY, initial=(("t", "b"),))
CHAIN = Template(("a",), inter=(("a", "a"),), static=("s",), intra=(("s", "a"),), states={"a": 2, "s": 2})


def parameters(template, count=3, seed=0):
    generator, found = torch.Generator().manual_seed(seed), {}
    for site, shape in template.sites.items():
        gamma = torch._standard_gamma(torch.ones(count, *shape, dtype=torch.float64), generator=generator)
        found[site] = gamma / gamma.sum(-1, keepdim=True)
    return found


def rows(template, count, slices, missing=0.0, seed=0):
    data = dbn.simulate(template, {k: v[0] for k, v in parameters(template).items()}, count, slices, seed)
    generator = torch.Generator().manual_seed(seed + 1)
    for name, column in data.items() if missing else ():
        lost = torch.rand(column.shape, generator=generator) < missing
        data[name] = torch.where(lost, torch.nan, column.double())
    return data


def visited(template, static, x):
    """Cells (site, index) of one complete row, family by family from the edges as written."""
    state = dict(zip(template.static, static, strict=True))
    for t, slice_ in enumerate(x):
        state |= {(name, t): value for name, value in zip(template.variables, slice_, strict=True)}
    for node, own in state.items():
        name, t = (node, None) if isinstance(node, str) else node
        edges = template.initial if t == 0 and template.initial is not None else template.intra
        parents = [a if a in template.static else (a, t) for a, b in edges if b == name]
        parents += [(a, t - 1) for a, b in template.inter if b == name] if t else []
        yield f"{name}_initial" if t == 0 else name, (*(state[parent] for parent in parents), own)


def completions(template, data):
    """For every row the list of its completions, each the list of its cells."""
    states = [template.states[name] for name in template.static]
    states += [template.states[name] for name in template.variables] * data["x"].shape[1]
    for row in torch.cat([data["static"].double(), data["x"].flatten(1).double()], 1).tolist():
        options = [range(k) if np.isnan(v) else [int(v)] for v, k in zip(row, states, strict=True)]
        count, width = len(template.static), len(template.variables)
        yield [
            list(visited(template, full[:count], np.reshape(full[count:], (-1, width))))
            for full in itertools.product(*options)
        ]


def brute_force(template, values, data):
    return [
        np.log(sum(np.prod([float(values[site][index]) for site, index in cells]) for cells in row))
        for row in completions(template, data)
    ]


def by_messages(template, draws, data):
    log = vmap(lambda values: categorical.tables(template, values))(draws)
    return messages.log_likelihood(template, log, *columns(template, data))


def by_states(template, draws, data):
    x, static = columns(template, data)
    return vmap(
        lambda values: (
            categorical.forward(template, values, x, static) + categorical.static_forward(template, values, static)
        )
    )(draws)


def by_elimination(template, draws, data):
    x, static = columns(template, data)
    seen = ~entries(template, x, static).isnan()
    patterns = tuple({tuple(row.nonzero()[:, 0].tolist()) for row in seen})
    return vmap(
        lambda values: (
            elimination.by_pattern(template, values, x, static, patterns=patterns)
            + categorical.static_forward(template, values, static)
        )
    )(draws)


@pytest.mark.parametrize("slices", [1, 3])
@pytest.mark.parametrize("missing", [0.0, 0.4])
@pytest.mark.parametrize("method", [dbn.log_likelihood, by_messages, by_states, by_elimination])
@pytest.mark.parametrize("template", [TINY, FIRST], ids=["tiny", "first"])
def test_log_likelihood_is_the_sum_over_all_completions(template, slices, missing, method):
    draws, data = parameters(template), rows(template, 8, slices, missing)
    theirs = [brute_force(template, {k: v[s] for k, v in draws.items()}, data) for s in range(3)]
    np.testing.assert_allclose(method(template, draws, data).numpy(), theirs, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("method", [by_messages, by_states, by_elimination])
def test_sequences_padded_by_missing_slices_score_as_the_shorter_ones(method):
    draws, short = parameters(TINY), rows(TINY, 10, 2, missing=0.2)
    padding = torch.full((10, 3, 2), torch.nan, dtype=torch.float64)
    padded = short | {"x": torch.cat([short["x"], padding], 1)}
    torch.testing.assert_close(method(TINY, draws, padded), method(TINY, draws, short))


WIDE = Template(
    tuple("abcdefgh"),
    intra=tuple(itertools.pairwise("abcdefgh")),
    inter=tuple((a, a) for a in "abcdefgh"),
    states=dict.fromkeys("abcdefgh", 3),
)


@pytest.mark.parametrize("method", [dbn.log_likelihood, by_messages])
def test_many_variables_are_summed_out_where_few_are_missing(method):
    data, draws = rows(WIDE, 4, 3), parameters(WIDE)
    x = data["x"].double()
    x[0, 1, 2:5], x[1, 0, 7], x[2, 2] = torch.nan, torch.nan, torch.nan
    ours = method(WIDE, draws, {"x": x})
    values = {k: v[0] for k, v in draws.items()}
    theirs = brute_force(WIDE, values, {"x": x[:2], "static": torch.zeros(2, 0)})
    np.testing.assert_allclose(ours[0, :2].numpy(), theirs, rtol=1e-10)
    # Row 2 lacks its last slice, which nothing seen depends on; row 3 nothing.
    torch.testing.assert_close(ours[:, 2], dbn.log_likelihood(WIDE, draws, {"x": data["x"][2:3, :2]})[:, 0])
    torch.testing.assert_close(ours[:, 3], dbn.log_likelihood(WIDE, draws, {"x": data["x"][3:]})[:, 0])


def test_hidden_columns_are_summed_out_by_elimination_and_by_messages_alike():
    data, draws = rows(WIDE, 6, 4), parameters(WIDE)
    x = data["x"].double()
    x[::2, :, 1:5], x[1::2, :, 5:] = torch.nan, torch.nan
    ours = dbn.log_likelihood(WIDE, draws, {"x": x})
    torch.testing.assert_close(by_messages(WIDE, draws, {"x": x}), ours)
    found = densities_of(WIDE).chosen(WIDE, *columns(WIDE, {"x": x})).sequences
    assert found.func is elimination.by_pattern
    scored = vmap(lambda values: found(WIDE, values, x, x.new_zeros(6, 0)))(draws)
    torch.testing.assert_close(scored, ours)


def test_more_joint_states_or_patterns_than_can_be_summed_are_refused_in_one_line():
    data, draws = rows(WIDE, 40, 3), parameters(WIDE)
    x = data["x"].double()
    x[3, 1] = torch.nan
    with pytest.raises(ValueError, match="6,561 joint states of missing entries at once, and a task sums over 4,096"):
        dbn.task(WIDE, {"x": x})
    with pytest.raises(ValueError, match=r"sequence 3 has 6,561 joint states .* in slice 1, .* use gibbs\(\)"):
        dbn.log_likelihood(WIDE, draws, {"x": x})
    with pytest.raises(ValueError, match="40 patterns of missing entries, and a task tells 8 apart") as error:
        dbn.task(WIDE, rows(WIDE, 40, 3, missing=0.5))
    assert "\n" not in str(error.value)


@functools.cache
def tiny_task(missing):
    return dbn.task(TINY, rows(TINY, 40, 3, missing))


@pytest.mark.parametrize("missing", [0.0, 0.3])
def test_task_scores_rows_as_the_template_does_and_its_prior_is_dirichlet(missing):
    task, draws = tiny_task(missing), parameters(TINY)
    free = unconstrain(TINY, draws)
    assert task.backend == "graph"
    torch.testing.assert_close(task.constrain(free), draws)
    torch.testing.assert_close(task.log_likelihood(task.data, free), dbn.log_likelihood(TINY, draws, task.data))
    # Dirichlet(1) is flat: what is left is the Jacobian of the stick-breaking, sum_k log of p_k but for the last
    # stick's own, which torch's transform gives.
    transform = torch.distributions.biject_to(torch.distributions.constraints.simplex)
    jacobian = sum(
        transform.log_abs_det_jacobian(transform.inv(value), value).reshape(3, -1).sum(1) for value in draws.values()
    )
    ours = task.log_prior(free) - jacobian
    torch.testing.assert_close(ours, ours[:1].expand(3))


def test_posterior_is_prior_times_likelihood_of_weighted_rows():
    task, weight = tiny_task(0.0), torch.linspace(0.2, 3, 40, dtype=torch.float64)
    template, posterior = TINY, dbn.conjugate(TINY, task.data, weight)
    draws = posterior.draw(5, seed=0)
    free, log_posterior = unconstrain(template, draws), 0.0
    jacobian = task.log_prior(free)  # the prior is flat
    for site, family in posterior.families.items():
        alpha, value = family.concentration.numpy(), draws[site].numpy()
        log_posterior = log_posterior + ((alpha - 1) * np.log(value)).reshape(5, -1).sum(1)
    log_joint = jacobian + task.log_likelihood(task.data, free) @ weight
    np.testing.assert_allclose(np.ptp((log_joint - jacobian).numpy() - log_posterior), 0, atol=1e-8)


def test_posterior_counts_cells_by_weight():
    data, weight = rows(TINY, 30, 4), np.linspace(0.5, 2, 30)
    counts = {site: np.full(shape, TINY.pseudo_count) for site, shape in TINY.sites.items()}
    for (cells,), w in zip(completions(TINY, data), weight, strict=True):
        for site, index in cells:
            counts[site][index] += w
    for site, family in dbn.conjugate(TINY, data, weight).families.items():
        np.testing.assert_allclose(family.concentration.numpy(), counts[site])


def test_simulated_rows_visit_cells_by_their_probability():
    values = {k: v[0] for k, v in parameters(TINY).items()}
    data = dbn.simulate(TINY, values, 5000, 4, seed=2)
    for site, family in dbn.conjugate(TINY, data).families.items():
        counts = family.concentration - TINY.pseudo_count
        total, p = counts.sum(-1, keepdim=True), values[site]
        assert ((counts - total * p).abs() < 4.5 * (total * p * (1 - p)).sqrt() + 1e-9).all()


def test_posterior_draws_have_dirichlet_moments():
    posterior, count = dbn.conjugate(TINY, rows(TINY, 20, 3)), 20_000
    draws = posterior.draw(count, seed=0)
    for site, family in posterior.families.items():
        alpha = family.concentration
        total = alpha.sum(-1, keepdim=True)
        mean, spread = alpha / total, (alpha * (total - alpha) / (total**2 * (total + 1))).sqrt()
        assert ((draws[site].mean(0) - mean).abs() < 4.5 * spread / count**0.5).all()
        assert (draws[site].std(0) / spread - 1).abs().max() < 0.06


def exact_mean(template, data):
    """Posterior mean of every cell: a mixture over all joint completions of all rows, weighted by their evidence."""
    total, mean = -np.inf, {site: np.zeros(shape) for site, shape in template.sites.items()}
    for choice in itertools.product(*completions(template, data)):
        counts = {site: np.full(shape, template.pseudo_count) for site, shape in template.sites.items()}
        for cells in choice:
            for site, index in cells:
                counts[site][index] += 1
        weight = sum((gammaln(c).sum(-1) - gammaln(c.sum(-1))).sum() for c in counts.values())
        new = np.logaddexp(total, weight)
        for site, c in counts.items():
            mean[site] = mean[site] * np.exp(total - new) + c / c.sum(-1, keepdims=True) * np.exp(weight - new)
        total = new
    return mean


def test_gibbs_has_the_exact_posterior_mean():
    nan = torch.nan
    # Neighbours that are missing together and depend on each other: drawing them at once is nine errors off.
    x = [[0, nan, nan, 0], [1, nan, nan, 1], [0, nan, nan, 1], [1, nan, nan, 0], [0, 0, 0, 0], [1, 1, 1, 1]]
    x = torch.tensor(x, dtype=torch.float64)
    static = torch.tensor([0, 0, 1, 0, 0, nan], dtype=torch.float64)[:, None]
    data, draws, batches = {"x": x[:, :, None], "static": static}, 1600, 20
    template = dataclasses.replace(CHAIN, pseudo_count=0.3)
    exact, found = exact_mean(template, data), dbn.gibbs(template, data, draws=draws, burn=100, seed=0)
    for site, mean in exact.items():
        means = found[site].reshape(batches, draws // batches, *mean.shape).mean(1).numpy()
        error = means.std(0, ddof=1) / batches**0.5
        assert (np.abs(means.mean(0) - mean) < 4 * error).all()


@pytest.mark.long
def test_gibbs_agrees_with_the_task_on_a_net_of_several_variables():
    """Self-normalised importance sampling of the exact likelihood, proposals from Gibbs draws' own Dirichlets."""
    data = rows(TINY, 12, 3, missing=0.25, seed=3)
    found = dbn.gibbs(TINY, data, draws=3000, burn=200, seed=0)
    wide = {}
    generator, log_q = torch.Generator().manual_seed(1), torch.zeros(20_000, dtype=torch.float64)
    for site, draws in found.items():
        mean, spread = draws.mean(0), draws.var(0)
        total = ((mean * (1 - mean)).sum(-1) / spread.sum(-1) - 1)[..., None]
        alpha = (0.8 * mean * total).expand(20_000, *mean.shape)
        gamma = torch._standard_gamma(alpha, generator=generator).clamp_min(1e-300)
        wide[site] = gamma / gamma.sum(-1, keepdim=True)
        dirichlet = torch.distributions.Dirichlet(alpha)
        log_q += dirichlet.log_prob(wide[site]).reshape(20_000, -1).sum(1)
    log_weight = dbn.log_likelihood(TINY, wide, data).sum(1) - log_q  # the prior is flat
    weight = (log_weight - log_weight.max()).exp()
    weight /= weight.sum()
    assert 1 / weight.square().sum() > 500
    for site, draws in found.items():
        shape = draws.shape[1:]
        theirs = torch.einsum("s,s...->...", weight, wide[site])
        error = torch.einsum("s,s...->...", weight.square(), (wide[site] - theirs).square())
        means = draws.reshape(30, 100, *shape).mean(1)
        error = (error + means.var(0) / 30).sqrt()
        assert ((means.mean(0) - theirs).abs() < 4.5 * error).all(), site


def test_gibbs_of_complete_rows_draws_from_the_exact_posterior():
    data = rows(TINY, 20, 3)
    found, posterior = dbn.gibbs(TINY, data, draws=1500, burn=0, seed=0), dbn.conjugate(TINY, data)
    alpha = posterior.families["a"].concentration[1, 2, 0]
    ours = found["a"][:, 1, 2, 0, 0].numpy()
    assert stats.kstest(ours, stats.beta(float(alpha[0]), float(alpha[1:].sum())).cdf).pvalue > 1e-3


def test_integers_given_as_floats_are_integers_where_none_is_missing():
    data = {name: column.double() for name, column in rows(TINY, 10, 2).items()}
    assert all(column.dtype == torch.int64 for column in columns(TINY, data))


def test_states_that_a_variable_has_not_are_refused_in_one_line():
    data = rows(TINY, 10, 2)
    data["x"][4, 1, 0] = 2
    with pytest.raises(ValueError, match="variable 'b' has the states 0 to 1, but row 4 holds 2: recode it") as error:
        dbn.task(TINY, data)
    assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match=r"row 0 holds 0\.5"):
        dbn.log_likelihood(TINY, parameters(TINY), {"x": torch.full((1, 1, 2), 0.5), "static": torch.zeros(1, 2)})


def test_axes_have_names_and_labels_for_arviz():
    assert TINY.dims["a"] == ("s_parent", "a_before_parent", "b_before_parent", "a_state")
    assert TINY.coords["a_state"] == (0, 1, 2)
    assert all(len(TINY.dims[site]) == len(shape) for site, shape in TINY.sites.items())
    lengths = {
        (dim, size) for site, shape in TINY.sites.items() for dim, size in zip(TINY.dims[site], shape, strict=True)
    }
    assert all(len(TINY.coords[dim]) == size for dim, size in lengths)
