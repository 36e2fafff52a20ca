"""Certificates: estimates and standard errors against exact Gaussian values, verdicts that must be no."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch

import bayesdd
from bayesdd.certificate.estimates import estimate
from bayesdd.certificate.verdict import draw_distilled
from bayesdd.data.certificate import Certificate, from_dict
from bayesdd.density.density import Density
from bayesdd.inference.draws import Draws
from bayesdd.inference.mode import fit
from models import gaussian_mean, linear_regression


def kl(m0, s0, m1, s1):
    return math.log(s1 / s0) + (s0**2 + (m0 - m1) ** 2) / (2 * s1**2) - 0.5


def log_ratio(theta, mean, sd):
    """Full N(0, 1) over distilled N(mean, sd^2), up to a large constant."""
    return -0.5 * theta**2 + 0.5 * ((theta - mean) / sd) ** 2 - 12345.0


@pytest.mark.parametrize(("mean", "sd"), [(0.1, 1.0), (0.0, 0.9), (0.3, 1.2)])
def test_intervals_cover_the_exact_value(mean, sd):
    inside = {"kl_reverse": 0, "kl_forward": 0}
    exact = {"kl_reverse": kl(mean, sd, 0, 1), "kl_forward": kl(0, 1, mean, sd)}
    for seed in range(60):
        noise = torch.randn(40, 50, 1, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        draws = Draws(mean + sd * noise)
        found = estimate(log_ratio(draws.flat[:, 0], mean, sd), draws, 1e4)
        for name in inside:
            inside[name] += abs(found[name] - exact[name]) < 2 * found[f"{name}_se"]
    assert min(inside.values()) >= 60 * 0.95 - 3 * math.sqrt(60 * 0.05 * 0.95)


def test_standard_errors_see_autocorrelation():
    """Chains that hardly move: the error of the mean is that of the chains, not of the draws."""
    generator = torch.Generator().manual_seed(0)
    chain = torch.randn(40, 1, 1, generator=generator, dtype=torch.float64).expand(40, 50, 1)
    stuck = estimate(log_ratio(0.3 + chain.flatten(), 0.3, 1.0), Draws(chain + 0.3), 1e4)
    free = torch.randn(40, 50, 1, generator=generator, dtype=torch.float64)
    moving = estimate(log_ratio(0.3 + free.flatten(), 0.3, 1.0), Draws(free + 0.3), 1e4)
    assert stuck["half_variance_se"] > 4 * moving["half_variance_se"]


def test_importance_weights_are_honoured():
    """Draws of N(0, 1.3^2), weighted to N(0.2, 1): the same divergences as from exact draws."""
    theta = 1.3 * torch.randn(40_000, 1, 1, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    log_weight = -0.5 * (theta - 0.2) ** 2 + 0.5 * (theta / 1.3) ** 2
    found = estimate(log_ratio(theta.flatten(), 0.2, 1.0), Draws(theta, log_weight[..., 0]), 1e4)
    for name, exact in (("kl_reverse", kl(0.2, 1, 0, 1)), ("kl_forward", kl(0, 1, 0.2, 1))):
        assert abs(found[name] - exact) < 4 * found[f"{name}_se"]


def few_events(y):
    rate = pyro.sample("rate", dist.Gamma(0.5, 0.5))
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Poisson(rate), obs=y)


def test_intervals_cover_where_the_tail_is_exponential():
    """Few events: the posterior of the log of their rate has a tail that a Laplace fit lacks. Both are Gammas."""
    task = bayesdd.Task(few_events, {"y": torch.tensor([2.0, 0, 1, 0, 2, 0, 0, 0, 0, 0], dtype=torch.float64)})
    rows = bayesdd.Distilled({"y": torch.tensor([0.5], dtype=torch.float64)}, torch.tensor([9.0], dtype=torch.float64))
    full, few = dist.Gamma(*torch.tensor([5.5, 10.5]).double()), dist.Gamma(*torch.tensor([5.0, 9.5]).double())
    exact = {
        "kl_reverse": float(torch.distributions.kl_divergence(few, full)),
        "kl_forward": float(torch.distributions.kl_divergence(full, few)),
    }
    off = []
    for seed in range(10):
        said = bayesdd.certify(task, rows, seed=seed)
        off += [(getattr(said, name) - value) / getattr(said, f"{name}_se") for name, value in exact.items()]
    assert torch.tensor(off).abs().max() < 3
    assert sum(abs(one) > 2 for one in off) <= 2


def test_exact_agreement_is_exact():
    draws = Draws(torch.randn(10, 50, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0)))
    found = estimate(torch.full((500,), -123456.789, dtype=torch.float64), draws, 1e6)
    assert found["kl_reverse"] == found["kl_forward"] == found["half_variance"] == 0
    assert found["khat"] == -math.inf and found["ess"] == pytest.approx(500)


def test_a_miss_is_no_certificate():
    """46 nats apart: the forward KL saturates, its error is infinite, and nothing is certified."""
    theta = 10 + torch.randn(40, 50, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = estimate(log_ratio(theta.flatten(), 10.0, 1.0), Draws(theta), 1e4)
    certificate = Certificate(**found, sweeps=0, gradients=0, tolerance=100.0)
    assert found["khat"] > 0.7 and math.isinf(found["kl_forward_se"])
    assert not certificate.ok and "at least" in str(certificate)


def test_too_wide_is_seen_though_khat_is_small():
    theta = 3 * torch.randn(80, 50, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    ratio = (-0.5 * theta**2 + 0.5 * (theta / 3) ** 2).flatten(0, 1).sum(1)
    found = estimate(ratio, Draws(theta), 1e4)
    assert found["khat"] < 0.7 and not Certificate(**found, sweeps=0, gradients=0, tolerance=0.05).ok
    assert found["kl_reverse"] == pytest.approx(5 * kl(0, 3, 0, 1), rel=0.05)


def test_non_finite_log_likelihoods_do_not_pass():
    theta = torch.randn(40, 50, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    ratio = log_ratio(theta.flatten(), 0.0, 1.0)
    ratio[:200] = -torch.inf
    found = estimate(ratio, Draws(theta), 1e4)
    assert not Certificate(**found, sweeps=0, gradients=0, tolerance=0.05).ok


def test_one_draw_far_out_takes_no_digits_from_the_others():
    """A draw at -1e20, as vague scales give: what all others say of the forward KL stays."""
    theta = 10 + torch.randn(40, 50, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    ratio = log_ratio(theta.flatten(), 10.0, 1.0)
    without = estimate(ratio, Draws(theta), 1e4)
    ratio[7] = -1e20
    found = estimate(ratio, Draws(theta), 1e20)
    assert found["khat"] > 0.7 and math.isinf(found["kl_forward_se"])
    assert found["kl_forward"] == pytest.approx(without["kl_forward"], rel=0.01)
    assert found["kl_reverse"] > 1e16


def test_round_trip_and_text():
    task = linear_regression.task(rows=50, dim=2)
    rows = {name: column[:10] for name, column in task.data.items()}
    few = bayesdd.Distilled(rows, torch.full((10,), 5.0, dtype=torch.float64))
    certificate = bayesdd.certify(task, few, seed=3)
    again = from_dict(certificate.to_dict())
    assert str(again) == str(certificate) and again.ok == certificate.ok
    assert list(again.corrected.index) == ["w[0]", "w[1]"]
    assert "nats" in str(certificate)


def test_certifies_the_rows_themselves_and_corrects_moments():
    task = linear_regression.task(rows=60, dim=3)
    same = bayesdd.certify(task, bayesdd.Distilled(task.data, torch.ones(60, dtype=torch.float64)))
    assert same.ok and same.kl_reverse < 1e-9 and not same.doubt
    weight = torch.ones(60, dtype=torch.float64)
    weight[:20] = 1.3
    near = bayesdd.certify(task, bayesdd.Distilled(task.data, weight))
    full, few = linear_regression.exact(**task.data), linear_regression.exact(**task.data, weight=weight)
    assert abs(near.kl_reverse - float(gaussian_mean.kl(few, full))) < 4 * near.kl_reverse_se
    assert abs(near.kl_forward - float(gaussian_mean.kl(full, few))) < 4 * near.kl_forward_se
    sd = torch.as_tensor(full[1]).diagonal().sqrt()
    miss = (torch.tensor(near.corrected["mean"].to_numpy()) - torch.as_tensor(full[0])).abs() / sd
    raw = (torch.tensor(near.corrected["distilled_mean"].to_numpy()) - torch.as_tensor(few[0])).abs() / sd
    assert float(miss.max()) < 0.1 and float(raw.max()) < 0.1


def lopsided(x, y=None):
    """At x = 1 and y = 4.4 one mode at 2.2 and another at -2, of about equal mass."""
    theta = pyro.sample("theta", dist.Normal(0.0, 3.0))
    with pyro.plate("data", len(x)):
        return pyro.sample("y", dist.Normal(theta**2 - 0.2 * theta * x, 0.5), obs=y)


def test_a_missed_mode_is_found():
    x = torch.ones(50, dtype=torch.float64)
    y = 4.4 + 0.1 * torch.randn(50, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    task = bayesdd.Task(lopsided, {"x": x, "y": y})
    # theta^2 + 4 theta + 4 has its only root at -2.
    row = {"x": torch.full((1,), -20.0, dtype=torch.float64), "y": torch.full((1,), -4.0, dtype=torch.float64)}
    certificate = bayesdd.certify(
        task, bayesdd.Distilled(row, torch.full((1,), 50.0, dtype=torch.float64)), tolerance=10.0
    )
    assert not certificate.ok and "full posterior" in certificate.doubt


def bent(x, y=None):
    theta = pyro.sample("theta", dist.Normal(0.0, 3.0))
    with pyro.plate("data", len(x)):
        return pyro.sample("y", dist.Normal(theta**2 + theta * x, 0.5), obs=y)


@pytest.mark.parametrize("seed", range(4))
def test_a_mode_that_only_the_distilled_posterior_has_is_found(seed):
    x = torch.randn(60, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    task = bayesdd.Task(bent, {"x": x, "y": 4.0 + 2.0 * x})
    # At x = 0 nothing tells 2 from -2.
    row = {"x": torch.zeros(1, dtype=torch.float64), "y": torch.full((1,), 4.0, dtype=torch.float64)}
    few = bayesdd.Distilled(row, torch.full((1,), 60.0, dtype=torch.float64))
    certificate = bayesdd.certify(task, few, seed=seed, tolerance=2.0)
    assert not certificate.ok and certificate.kl_reverse + certificate.kl_reverse_se > 2.0


def test_draws_fall_back_to_hmc_where_laplace_is_poor():
    def skewed(y):
        rate = pyro.sample("rate", dist.Gamma(0.2, 0.2))
        with pyro.plate("data", len(y)):
            pyro.sample("y", dist.Poisson(rate), obs=y)

    task = bayesdd.Task(skewed, {"y": torch.zeros(2)})
    draws = draw_distilled(Density([(task, task.data, None)]), 0)
    rate = task.constrain(draws.flat)["rate"]
    assert draws.log_weight is None and abs(float(rate.mean()) - 0.2 / 2.2) < 0.03


def test_more_draws_decide_where_the_standard_errors_alone_forbid():
    """Divergences just within the tolerance: four times the draws, and they are certified; far within: the usual."""
    y = torch.linspace(-1.0, 1.0, 40, dtype=torch.float64)[:, None]
    task = bayesdd.Task(gaussian_mean.model, {"x": y})
    one = bayesdd.Distilled({"x": y.mean(0)[None] + 0.3 / math.sqrt(41) * 41 / 40}, torch.tensor([40.0]))
    true = 0.045  # means 0.3 sds apart, equal sds: half the square
    usual = bayesdd.certify(task, one, seed=2, tolerance=0.1)
    close = bayesdd.certify(task, one, seed=2, tolerance=usual.kl_reverse + 1.5 * usual.kl_reverse_se)
    assert usual.ok and close.ok and close.draws == 4 * usual.draws
    assert abs(close.kl_reverse - true) < 4 * close.kl_reverse_se
    beyond = bayesdd.certify(task, one, seed=2, tolerance=0.02)
    assert not beyond.ok and beyond.draws == usual.draws


def test_draws_of_a_certificate_are_not_those_of_a_search():
    """Whatever the two seeds: the numbers behind the first thousand draws have nothing in common."""
    task = linear_regression.task(rows=40, dim=2)
    density = Density([(task, task.data, None)])
    gaussian = fit(density)
    ours = gaussian.whitened(draw_distilled(density, 0, count=1000).flat).flatten()
    for seed in range(4):
        theirs = gaussian.whitened(gaussian.draw(1000, torch.Generator().manual_seed(seed))).flatten()
        assert float((ours[:, None] - theirs).abs().amin(1).median()) > 1e-6
