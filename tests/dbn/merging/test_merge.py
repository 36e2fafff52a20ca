"""Merging linear-Gaussian sources: closed forms against densities, and merged rows against the joint posterior."""

import dataclasses
import functools
import math
import warnings

import numpy as np
import pytest
import torch
from scipy import stats

import bayesdd
from bayesdd import CertificateWarning, dbn
from bayesdd.dbn import federated, merge, overstated
from bayesdd.dbn.inference import inference_data, labelled, pooled, predictive
from bayesdd.dbn.inference.regressions import Layout
from bayesdd.dbn.inference.statistics import of_draws, of_regressions
from bayesdd.dbn.likelihood import unconstrain
from bayesdd.dbn.likelihood.gaussian import entries, in_order
from bayesdd.dbn.likelihood.source import Source
from bayesdd.dbn.merging._federated import _evened
from bayesdd.dbn.merging.excess import excess_of
from bayesdd.dbn.merging.holder import Holder
from bayesdd.dbn.merging.masked import Gap, Match, log_likelihood
from bayesdd.dbn.merging.moments import Joint, moments
from bayesdd.dbn.merging.predictive import prediction_loss
from bayesdd.dbn.template.template import Template

# Not in topological order, families of unequal size, a static variable.
NET = Template(
    ("c", "a", "b"), static=("s",), intra=(("s", "a"), ("a", "b")), inter=(("a", "a"), ("c", "a"), ("b", "c"))
)
PAIR = Template(("a", "b"), intra=(("a", "b"),), inter=(("a", "a"),))
TRIO = Template(("a", "b", "c"), intra=(("a", "b"), ("a", "c"), ("b", "c")))

PLAIN = Template(("a", "b", "c"), intra=(("a", "c"), ("b", "c")), inter=(("a", "a"), ("b", "b")))


def values(template, seed=0):
    generator = torch.Generator().manual_seed(seed)
    found = {}
    for site, shape in template.sites.items():
        value = torch.randn(shape, generator=generator, dtype=torch.float64)
        found[site] = 0.4 * value if shape else 0.4 + 0.3 * value.abs()
    return found


def rows(template, count, slices, seed=0):
    return dbn.simulate(template, values(template), count, slices, seed)


def moments_of(template, data, weight):
    layout = Layout.of(template)
    static = data.get("static", torch.zeros(len(data["x"]), 0, dtype=torch.float64))
    return layout, layout.grams(*in_order(template, data["x"], static), weight)


def test_regressions_of_the_second_moments_are_the_conjugate_posteriors():
    data, weight = rows(NET, 12, 3), torch.linspace(0.3, 2, 12, dtype=torch.float64)
    layout, gram = moments_of(NET, data, weight)
    found, theirs = layout.fitted(gram), dbn.conjugate(NET, data, weight)
    for f, (family, exact) in enumerate(zip(NET.structure.families, theirs.families.values(), strict=True)):
        count = 1 + len(family.parents)
        torch.testing.assert_close(found.mean[f, :count], exact.mean)
        torch.testing.assert_close((found.root @ found.root.mT)[f, :count, :count], exact.precision)
        torch.testing.assert_close(found.shape[f], exact.shape)
        torch.testing.assert_close(found.scale[f], exact.scale)
    stacked = layout.stacked(layout.values(*found.draw(layout.real, torch.Generator().manual_seed(0))))
    assert (stacked[0][~layout.real] == 0).all()


def test_slices_that_do_not_live_do_not_count():
    data = rows(NET, 6, 4)
    layout, short = moments_of(NET, data | {"x": data["x"][:, :2]}, torch.ones(6, dtype=torch.float64))
    live = torch.tensor([1.0, 1.0, 0.0, 0.0], dtype=torch.float64).expand(6, 4)
    x, static = in_order(NET, data["x"], data["static"])
    torch.testing.assert_close(layout.grams(x, static, torch.ones(6, dtype=torch.float64), live), short)


def test_statistics_in_closed_form_are_those_of_draws():
    layout, gram = moments_of(NET, rows(NET, 12, 3), torch.ones(12, dtype=torch.float64))
    found = layout.fitted(gram)
    exact = of_regressions(type(found)(*(part[None] for part in found)), layout.real)
    many = type(found)(*(part.expand(40_000, *part.shape).contiguous() for part in found))
    slopes, variance = many.draw(layout.real, torch.Generator().manual_seed(0))
    scaled = slopes / variance[..., None]
    averages = of_draws(slopes, variance)
    assert set(averages._fields) == {"precision", "scaled", "products", "log_variance"}
    for name, each in (
        ("precision", 1 / variance),
        ("scaled", scaled),
        ("products", scaled[..., :, None] * slopes[..., None, :]),
        ("log_variance", variance.log()),
    ):
        error = each.std(0) / 200 + 1e-12
        assert ((each.mean(0) - getattr(exact, name)).abs() < 4.5 * error).all(), name
        torch.testing.assert_close(getattr(averages, name), each.mean(0))


def log_density(template, data, weight, draws):
    """Of the families' normal-inverse-gammas given complete rows, at draws."""
    total = np.zeros(len(next(iter(draws.values()))))
    for site, family in dbn.conjugate(template, data, weight).families.items():
        variance = draws[f"{site}_variance"].numpy()
        total += stats.invgamma(float(family.shape), scale=float(family.scale)).logpdf(variance)
        covariance = np.linalg.inv(family.precision.numpy())
        for s, (slopes, v) in enumerate(zip(draws[site].numpy(), variance, strict=True)):
            total[s] += stats.multivariate_normal(family.mean.numpy(), v * covariance).logpdf(slopes)
    return total


def test_excess_is_the_expected_log_density_that_rows_lose():
    """Its difference between two sets of rows is the mean, over draws, of that of their posteriors' log densities."""
    draws = dbn.conjugate(NET, rows(NET, 30, 3)).draw(200, seed=0)
    ones = torch.ones(5, dtype=torch.float64)
    first, second = (rows(NET, 5, 3, seed) for seed in (1, 2))
    (layout, gram), (_, other) = moments_of(NET, first, 3 * ones), moments_of(NET, second, 0.7 * ones)
    excess = excess_of(layout, of_draws(*layout.stacked(draws)))
    theirs = (log_density(NET, second, 0.7 * ones, draws) - log_density(NET, first, 3 * ones, draws)).mean()
    np.testing.assert_allclose(float(excess(gram) - excess(other)), theirs, rtol=1e-8)


def test_excess_is_zero_at_the_rows_that_the_posterior_comes_from_and_positive_elsewhere():
    data, ones = rows(NET, 12, 3), torch.ones(12, dtype=torch.float64)
    layout, gram = moments_of(NET, data, ones)
    found = layout.fitted(gram)
    statistics = of_regressions(type(found)(*(part[None] for part in found)), layout.real)
    excess = excess_of(layout, statistics)
    assert abs(float(excess(gram))) < 1e-8
    assert float(excess(moments_of(NET, data, 1.1 * ones)[1])) > 1e-3
    assert float(excess(moments_of(NET, rows(NET, 12, 3, seed=1), ones)[1])) > 1e-3


def test_predictive_density_of_sequences_is_prior_times_likelihood_over_posterior():
    """log p(x | U) = log p(x | theta) + log p(theta | U) - log p(theta | U and x), at any theta."""
    full = pooled_pair()
    layout, weight = Layout.of(PAIR), torch.ones(4, dtype=torch.float64)
    data = rows(PAIR, 4, 3)
    _, gram = moments_of(PAIR, data, weight)
    few = dataclasses.replace(full, draws={site: value[:3] for site, value in full.draws.items()})
    # The three simulated sequences, from the same seed.
    joint = Joint.of(PAIR, few.draws, 3)
    noise = torch.randn(joint.mean.shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    flat = joint.mean + (torch.linalg.cholesky(joint.covariance) @ noise[..., None])[..., 0]
    theta = {site: value[:1] for site, value in full.draws.items()}
    expected = []
    for row in flat:
        x = row.reshape(1, 3, 2)
        both = {"x": torch.cat([data["x"], x])}
        ratio = log_density(PAIR, data, weight, theta) - log_density(PAIR, both, torch.ones(5).double(), theta)
        expected.append(float(dbn.log_likelihood(PAIR, theta, {"x": x})) + ratio[0])
    ours = float(prediction_loss(few, layout, 3, seed=5)(gram))
    np.testing.assert_allclose(ours, -np.mean(expected), rtol=1e-9)


def test_log_likelihood_of_rows_is_linear_in_their_moments():
    noisy = dataclasses.replace(NET, noise={"a": 0.3, "c": 0.5})
    data = rows(NET, 10, 3)
    data["x"][::2, :, 1], data["x"][1::2, 2], data["static"][5:] = torch.nan, torch.nan, torch.nan
    draws = dbn.conjugate(NET, rows(NET, 10, 3)).draw(4, seed=0)
    joint = Joint.of(NET, draws, 3)
    flat = entries(NET, data["x"], data["static"])
    for template in (NET, noisy):
        theirs = dbn.log_likelihood(template, draws, data).sum(1)
        torch.testing.assert_close(joint.log_likelihood(template, flat), theirs)
    weight = torch.linspace(0.1, 2, 10, dtype=torch.float64)
    ratio = Match.of(joint, NET, torch.zeros(4, dtype=torch.float64), ~flat.isnan()).ratio(flat.nan_to_num(), weight)
    torch.testing.assert_close(-ratio, dbn.log_likelihood(NET, draws, data) @ weight)


def test_gap_of_two_gaussians_is_their_divergence():
    """Full N(0, 1), distilled N(m, s^2): both KLs in closed form."""
    mean, spread, count = 0.2, 1.1, 400_000
    draws = torch.randn(count, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    ratio = -0.5 * draws.square() + 0.5 * ((draws - mean) / spread).square() + 7
    gap = Gap.of(ratio)
    forward = math.log(spread) + (1 + mean**2) / (2 * spread**2) - 0.5
    reverse = -math.log(spread) + (spread**2 + mean**2) / 2 - 0.5
    error = 5 * float(ratio.std()) / count**0.5
    assert abs(gap.kl_forward - forward) < error and abs(gap.kl_reverse - reverse) < error and gap.khat < 0.5


def sources_of_pair():
    data = rows(PAIR, 24, 3)["x"]
    generator = torch.Generator().manual_seed(3)
    noise = torch.randn(data.shape, generator=generator, dtype=torch.float64)
    first, second = (data + 0.4 * noise)[:12], (data + 0.2 * noise)[12:]
    first[:4, 2], second[5, :, 0] = torch.nan, torch.nan
    return [Source({"x": first}, noise_site="error"), Source({"x": second}, ("b",), noise=0.2), Source({"x": data[:6]})]


@functools.cache
def pooled_pair():
    return pooled(PAIR, sources_of_pair(), draws=2400, seed=0)


def test_augmentation_draws_from_the_posterior_of_the_target():
    """Against importance sampling of the tasks' own densities, by a Student-t fitted to the draws."""
    full, sources = pooled_pair(), sources_of_pair()
    assert full.rhat < 1.1
    density = bayesdd.density.Density([(task, task.data, None) for task in dbn.target(PAIR, sources)])
    task = dataclasses.replace(PAIR, noise_site="error")
    free = unconstrain(task, full.draws)
    mean, factor = free.mean(0), torch.linalg.cholesky(torch.cov(free.T))
    generator, count, dim, degrees = torch.Generator().manual_seed(1), 20_000, free.shape[1], 8
    noise = torch.randn(count, dim, generator=generator, dtype=torch.float64)
    square = torch.randn(count, degrees, generator=generator, dtype=torch.float64).square().sum(1)
    white = noise * (degrees / square).sqrt()[:, None]
    log_q = -(degrees + dim) / 2 * torch.log1p(white.square().sum(1) / degrees)
    points = mean + white @ factor.mT
    order = [i for name in density.starts for i in _places(task, name)]
    log_weight = density.log_joint(points[:, order]) - log_q
    weight = torch.softmax(log_weight, 0)
    assert 1 / weight.square().sum() > 1000
    theirs = weight @ points
    error = (weight.square() @ (points - theirs).square()).sqrt()
    batches = free.reshape(8, 5, -1, dim).mean(2).reshape(40, dim)  # eight chains, one after the other
    error = (error.square() + batches.var(0) / 40).sqrt()
    assert ((free.mean(0) - theirs).abs() < 4.5 * error).all()
    spread = (weight @ (points - theirs).square()).sqrt()
    # The noise's own tail towards zero, of a dozen rows, is explored slowly.
    assert (free.std(0) / spread - 1)[:-1].abs().max() < 0.15


def _places(template, site):
    """Of a site in the template's own flat draws."""
    used = 0
    for name, shape in template.sites.items():
        width = math.prod(shape)
        if name == site:
            return range(used, used + width)
        used += width
    raise KeyError(site)


def test_complete_rows_have_the_posterior_of_complete_sources():
    """A few weighted rows in place of 40; the excess is zero, so that every family's posterior is met."""
    data = rows(NET, 40, 4)
    halves = [{name: column[k::2] for name, column in data.items()} for k in (0, 1)]
    full = pooled(NET, [Source(half) for half in halves], draws=2000)
    found = merge(NET, full.sources, size=8, complete=True, full=full)
    assert found.provenance["excess"] < 2e-3 and found.provenance["apart"] == []
    exact, ours = dbn.conjugate(NET, data).families, dbn.conjugate(NET, found.data, found.weight).families
    for site, family in exact.items():
        spread = (family.scale / family.shape * torch.linalg.inv(family.precision).diagonal()).sqrt()
        assert ((ours[site].mean - family.mean).abs() < 0.1 * spread).all()
        assert abs(float(ours[site].scale / ours[site].shape / (family.scale / family.shape)) - 1) < 0.05
    table = overstated(full, found)
    assert list(table.index[:2]) == ["s_variance", "s[intercept]"] and ((table["ratio"] - 1).abs() < 0.15).all()
    test = rows(NET, 200, 4, seed=9)
    gap = predictive(NET, full.draws, test) - predictive(
        NET, dbn.conjugate(NET, found.data, found.weight).draw(2000, 0), test
    )
    assert abs(float(gap.mean())) < 0.02


def trio():
    # Few rows: what nobody saw together, augmentation explores the more slowly the more rows there are.
    data = rows(TRIO, 16, 2)
    return [Source({"x": data["x"][:8]}, ("a", "c")), Source({"x": data["x"][8:]}, ("b", "c"))]


@functools.cache
def pooled_trio():
    return pooled(TRIO, trio(), draws=2000)


@pytest.mark.long
def test_masked_rows_have_the_joint_posterior_and_complete_rows_claim_what_nobody_saw():
    full = pooled_trio()
    masked = merge(TRIO, full.sources, size=14, full=full)
    assert masked.provenance["gap"]["kl_reverse"] < 0.02
    x = masked.data["x"]
    assert (x[:, :, 0].isnan().all(1) ^ x[:, :, 1].isnan().all(1)).all()  # no row has seen a and b
    draws = {site: value[::40] for site, value in full.draws.items()}
    real = {"x": torch.cat([x for x, _ in full.rows])}
    ratio = dbn.log_likelihood(TRIO, draws, real).sum(1) - dbn.log_likelihood(TRIO, draws, masked.data) @ masked.weight
    assert float(ratio.var()) / 2 < 0.02
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        whole = merge(TRIO, full.sources, size=14, complete=True, full=full)
    assert whole.provenance["apart"] == [("a", "b")]
    assert bool(caught) == bool(whole.provenance["overstated"])
    assert all("over-state" in str(c.message) and "never seen together: (a, b)" in str(c.message) for c in caught)
    surer = dataclasses.replace(whole, weight=100 * whole.weight)
    table = overstated(full, surer)
    assert float(table["ratio"]["b_initial[a]"]) < 0.5
    assert not whole.data["x"].isnan().any()


@pytest.mark.filterwarnings("ignore::bayesdd.CertificateWarning")  # few rows take less time
def test_equal_weights_are_equal():
    full = pooled_trio()
    masked = merge(TRIO, full.sources, size=5, full=full, equal_weights=True)
    assert (masked.weight == masked.weight[0]).all()


@pytest.mark.long
def test_too_few_rows_warn_and_predict_better_than_their_posterior_would():
    full = pooled_trio()
    with pytest.warns(CertificateWarning, match="more rows come closer"):
        merge(TRIO, full.sources, size=1, full=full)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CertificateWarning)
        found = merge(TRIO, full.sources, size=1, complete=True, full=full)
    layout, gram = moments_of(TRIO, found.data, found.weight)
    loss = prediction_loss(full, layout, 2, seed=0)
    assert float(loss(gram)) < float(loss(40 * gram))


@pytest.mark.filterwarnings("ignore::bayesdd.CertificateWarning")
def test_merging_is_repeatable():
    full = pooled_trio()
    first, second = (merge(TRIO, full.sources, size=5, full=full, seed=3) for _ in range(2))
    assert torch.equal(first.weight, second.weight)
    assert first.data["x"].equal(second.data["x"]) or torch.allclose(
        first.data["x"], second.data["x"], rtol=0, atol=0, equal_nan=True
    )


def test_constant_and_repeated_columns_are_merged():
    """Singular scatters: the prior keeps every regression proper."""
    data = rows(PAIR, 12, 3)["x"]
    data[:, :, 1] = data[:, :, 0]
    data[6:, :, 1] = 2.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        full = pooled(PAIR, [Source({"x": data[:6]}), Source({"x": data[6:]})], draws=400)
        found = merge(PAIR, full.sources, size=6, complete=True, full=full)
    assert torch.isfinite(found.data["x"]).all() and math.isfinite(found.provenance["excess"])


def test_sequences_of_length_one_are_merged():
    data = rows(PAIR, 12, 1)["x"]
    with pytest.warns(UserWarning, match="no source has seen more than 1 slice: the parameters of later ones stay"):
        full = pooled(PAIR, [Source({"x": data})], draws=800)
    found = merge(PAIR, full.sources, size=6, complete=True, full=full)
    assert found.data["x"].shape == (6, 1, 2)


def test_evened_rows_have_the_mean_and_scatter_of_weighted_ones():
    generator = torch.Generator().manual_seed(0)
    some = torch.randn(7, 4, generator=generator, dtype=torch.float64)
    weight = 5 * torch.rand(7, generator=generator, dtype=torch.float64)
    even = _evened(some, weight)
    ours, theirs = moments(even, torch.ones(len(even)).double()) / len(even), moments(some, weight) / weight.sum()
    torch.testing.assert_close(ours, theirs)
    assert abs(len(even) - float(weight.sum())) <= 0.5


@pytest.mark.long
def test_the_union_of_sets_fitted_where_rows_lie_has_the_pooled_posterior():
    data = rows(PLAIN, 60, 3)["x"]
    noise = torch.randn(data.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    sources = [
        Source({"x": (data + 0.2 * noise)[:30]}, ("a", "c"), noise=0.2),
        Source({"x": data[30:]}, ("a", "b", "c")),
    ]
    found = federated(PLAIN, sources, (12, 10), rounds=2, draws=1000)
    assert len(found) == 22 and [part["rows"] for part in found.provenance["parts"]] == [30, 30]
    full = pooled(PLAIN, sources, draws=1000, seed=5)
    joint = Joint.of(PLAIN, full.draws, 3)
    flat = entries(PLAIN, found.data["x"], torch.zeros(22, 0).double())
    gap = Gap.of(
        Match.of(joint, PLAIN, log_likelihood(full, joint), ~flat.isnan()).ratio(flat.nan_to_num(), found.weight)
    )
    assert gap.kl_reverse < 0.05 and gap.kl_forward < 0.05


def test_rows_that_keep_their_noise_stand_for_noisy_sources_exactly():
    """More rows a pattern than entries: mean and scatter are kept, so that no draw tells rows from sources."""
    data = rows(PLAIN, 60, 2)["x"]
    noisy = data + 0.5 * torch.randn(data.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    sources = [Source({"x": noisy[:30]}, ("a", "c"), noise=0.5), Source({"x": noisy[30:]}, noise=0.5)]
    found = federated(PLAIN, sources, (6, 9), rounds=1, draws=600, keep_noise=True)
    student = dataclasses.replace(PLAIN, noise=0.5)
    draws = {site: value[:40] for site, value in pooled(PLAIN, sources, draws=2000).draws.items()}
    full = sum(
        task.log_likelihood(task.data, unconstrain(student, draws)).sum(1) for task in dbn.target(PLAIN, sources)
    )
    ratio = full - dbn.log_likelihood(student, draws, found.data) @ found.weight
    assert float(ratio.var() / 2) < 1e-3
    with pytest.raises(ValueError, match=r"needs one known noise, the same for all sources, got \[0.5, 0.2\]"):
        federated(PLAIN, [sources[0], dataclasses.replace(sources[1], noise=0.2)], 4, keep_noise=True)


def test_an_unknown_noise_is_integrated_out_where_the_rows_lie():
    """The grid's integral against that of Chib's identity at the joint posterior's own draws."""
    full = pooled_pair()
    first = dataclasses.replace(PAIR, noise_site="error")
    flat = entries(PAIR, *full.rows[0])
    draws = {site: full.draws[site][::240] for site in PAIR.sites}
    joint = Joint.of(PAIR, draws, 3)
    ours = Holder(first, PAIR, flat, 3).log_likelihood(joint)
    grid = torch.linspace(1e-4, 4, 4000, dtype=torch.float64)
    prior = torch.distributions.HalfNormal(1.0).log_prob(grid) + math.log(float(grid[1] - grid[0]))
    theirs = torch.stack([joint.log_likelihood(dataclasses.replace(PAIR, noise=float(v)), flat) for v in grid[::8]])
    theirs = (theirs + prior[::8, None] + math.log(8)).logsumexp(0)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=0.02)


REFUSED = {
    "sizes": ({"sizes": (3,)}, "a positive size for each of 2 sources"),
    "none": ({"sizes": 0}, "a positive size"),
    "rounds": ({"sizes": 3, "rounds": 0}, "at least one round"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_federated_refuses_in_one_line(name):
    settings, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        federated(TRIO, trio(), **settings)


def test_a_noise_that_two_sources_share_cannot_be_federated():
    sources = [dataclasses.replace(source, noise_site="error") for source in trio()]
    with pytest.raises(ValueError, match="must share rows"):
        federated(TRIO, sources, 4)


def test_merge_needs_a_row():
    with pytest.raises(ValueError, match="at least one row"):
        merge(TRIO, trio(), size=0)


def test_posteriors_carry_the_names_of_variables():
    full = pooled_pair()
    idata = inference_data(PAIR, full.draws, chains=8)
    assert float(idata.posterior["b"].sel(b_term="a").mean()) == pytest.approx(float(full.draws["b"][:, 1].mean()))
    assert idata.posterior["error"].dims == ("chain", "draw")
    found = merge(PAIR, full.sources, size=6, complete=True, full=full)
    drawn = labelled(
        PAIR, bayesdd.sample(dbn.student(PAIR, 3), found, draws=20, chains=2, seed=0, method=bayesdd.inference.laplace)
    )
    assert list(drawn.posterior["a"].coords["a_term"].values) == ["intercept", "a_before"]
    assert drawn.posterior["a_variance"].dims == ("chain", "draw") and "distilled_data" in str(drawn)
