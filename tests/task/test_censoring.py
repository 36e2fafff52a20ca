"""Censored values and frequency weights: exact posteriors, and rows that keep their codes."""

import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from scipy import stats

import bayesdd
from bayesdd.task.censoring import log_survival


def number(value):
    return torch.tensor(value, dtype=torch.float64)


CODES = torch.tensor([1, 0, 2, 3])
VALUE, UNTIL = torch.full((4,), 0.7, dtype=torch.float64), torch.full((4,), 1.9, dtype=torch.float64)


@pytest.mark.parametrize(
    ("base", "exact"),
    [
        (dist.Exponential(number(1.3)), stats.expon(scale=1 / 1.3)),
        (dist.Weibull(number(1.5), number(2.0)), stats.weibull_min(2.0, scale=1.5)),
        (dist.Normal(number(0.5), number(0.8)), stats.norm(0.5, 0.8)),
        (
            dist.LogNormal(number(0.2), number(0.6)),
            stats.lognorm(0.6, scale=math.exp(0.2)),
        ),
        (dist.Gamma(number(2.0), number(1.1)), stats.gamma(2.0, scale=1 / 1.1)),
    ],
)
def test_every_code_has_the_probability_of_what_is_known(base, exact):
    found = bayesdd.censored(base.expand([4]), CODES, UNTIL).log_prob(VALUE)
    between = math.log(exact.cdf(1.9) - exact.cdf(0.7))
    wanted = [exact.logpdf(0.7), exact.logsf(0.7), exact.logcdf(0.7), between]
    np.testing.assert_allclose(found, wanted, rtol=1e-9)


def test_far_tails_keep_their_digits():
    far = number([30.0])
    assert float(log_survival(dist.Normal(number(0.0), number(1.0)), far)) == pytest.approx(
        stats.norm.logsf(30.0), rel=1e-12
    )
    early = bayesdd.censored(dist.Exponential(torch.ones(1).double()), torch.tensor([2])).log_prob(number([1e-12]))
    assert float(early) == pytest.approx(math.log(1e-12), rel=1e-9)


def survival(event, time=None, until=None):
    rate = pyro.sample("rate", dist.Gamma(2.0, 1.0))
    with pyro.plate("patients", len(event)):
        return pyro.sample(
            "time", bayesdd.censored(dist.Exponential(rate).expand([len(event)]), event, until), obs=time
        )


def test_the_posterior_of_right_censored_times_is_a_gamma():
    rng = np.random.default_rng(0)
    true, limit = rng.exponential(2.0, 200), rng.uniform(0.5, 4.0, 200)
    event = (true <= limit).astype(int)
    task = bayesdd.Task(survival, {"time": np.minimum(true, limit), "event": event})
    assert task.column_kinds["event"].name == "fixed" and task.column_kinds["time"].name.startswith("positive")
    distilled = bayesdd.distill(task, size=4, seed=0, progress=False)
    assert distilled.certificate.ok and set(distilled.data["event"].tolist()) <= {0, 1}
    shape, rate = 2.0 + event.sum(), 1.0 + float(task.data["time"].sum())
    corrected = distilled.certificate.corrected
    sd = math.sqrt(shape) / rate
    assert abs(float(corrected["distilled_mean"]["rate"]) - shape / rate) < 0.1 * sd
    new = bayesdd.predict(task, bayesdd.sample(task, distilled, draws=50, chains=2), {"event": np.ones(3, int)})
    assert new.posterior_predictive["time"].shape == (2, 50, 3)


def weighted(x, times, y=None):
    w = pyro.sample("w", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
    with pyro.plate("data", len(x)), pyro.poutine.scale(scale=times):
        return pyro.sample("y", dist.Normal(x @ w, 0.5), obs=y)


def test_frequency_weights_are_repeated_rows():
    rng = np.random.default_rng(1)
    x, times = np.column_stack([np.ones(30), rng.normal(size=30)]), rng.integers(1, 5, 30)
    y = x @ [0.5, -1.0] + 0.5 * rng.normal(size=30)
    task = bayesdd.Task(weighted, {"x": x, "times": times, "y": y})
    assert task.column_kinds["times"].name == "fixed"
    again = np.repeat(np.arange(30), times)
    long = bayesdd.Task(weighted, {"x": x[again], "times": np.ones(len(again), int), "y": y[again]})
    draws = torch.randn(5, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    one, many = (t.log_likelihood(t.data, draws).sum(1) for t in (task, long))
    torch.testing.assert_close(one, many, rtol=1e-12, atol=0)
    torch.testing.assert_close(task.log_prior(draws), long.log_prior(draws))
    assert bayesdd.distill(task, size=4, seed=0, progress=False).certificate.ok


def test_refusals():
    with pytest.raises(bayesdd.Refusal, match="needs a distribution"):
        bayesdd.censored(1.0, CODES)
    with pytest.raises(bayesdd.Refusal, match="one value a row"):
        bayesdd.censored(dist.Normal(torch.zeros(4), 1.0).to_event(1), CODES)
