"""Times to an event: right, left and interval censoring, delayed entry, causes, frailty, cure."""

from functools import partial

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from studies.contract.form import Data, Form, Rng, design


def exponential(time: Tensor, event: Tensor) -> None:
    """A constant hazard; time is censored where there was no event."""
    rate = pyro.sample("rate", dist.Gamma(1.0, 1.0))
    with pyro.plate("data", len(time)):
        pyro.factor("time", event * rate.log() - rate * time)


def exponential_masked(x: Tensor, time: Tensor, event: Tensor) -> None:
    """A hazard against covariates; the density masked where there was no event."""
    w = pyro.sample("w", dist.Normal(0.0, 1.0).expand([x.shape[-1]]).to_event(1))
    rate = (x @ w).exp()
    with pyro.plate("data", len(time)):
        pyro.sample("died", dist.Exponential(rate).mask(event == 1), obs=time)
        pyro.factor("alive", torch.where(event == 0, -rate * time, torch.zeros_like(time)))


def weibull(x: Tensor, time: Tensor, event: Tensor) -> None:
    """Weibull times with right censoring."""
    w = pyro.sample("w", dist.Normal(0.0, 1.0).expand([x.shape[-1]]).to_event(1))
    shape = pyro.sample("shape", dist.LogNormal(0.0, 0.5))
    hazard = (time / (x @ w).exp()) ** shape
    log_density = shape.log() - time.log() + hazard.log()
    with pyro.plate("data", len(time)):
        pyro.factor("time", event * log_density - hazard)


def log_normal(x: Tensor, time: Tensor, event: Tensor) -> None:
    """Accelerated failure times, log-normal, censored by ``torch.where``."""
    w = pyro.sample("w", dist.Normal(0.0, 2.0).expand([x.shape[-1]]).to_event(1))
    sigma = pyro.sample("sigma", dist.HalfNormal(1.0))
    log_time = dist.Normal(x @ w, sigma)
    alive = torch.special.log_ndtr((x @ w - time.log()) / sigma)
    with pyro.plate("data", len(time)):
        pyro.factor("time", torch.where(event == 1, log_time.log_prob(time.log()) - time.log(), alive))


def log_logistic(x: Tensor, log_time: Tensor, event: Tensor) -> None:
    """Accelerated failure times, logistic in their log, the log a column."""
    w = pyro.sample("w", dist.Normal(0.0, 2.0).expand([x.shape[-1]]).to_event(1))
    scale = pyro.sample("scale", dist.HalfNormal(1.0))
    z = (log_time - x @ w) / scale
    with pyro.plate("data", len(log_time)):
        pyro.factor("t", event * (z - scale.log()) - (1 + event) * torch.nn.functional.softplus(z))


def censored(rng: Rng, shape: float = 1.5, covariates: int = 2, log: bool = False) -> Data:
    """Weibull times, a third of them censored at uniform times."""
    x = design(rng, 500, covariates)
    time = np.exp(x @ [0.5, 0.4, -0.3][: covariates + 1]) * rng.weibull(shape, size=500)
    end = rng.uniform(0.5, 5, size=500)
    seen = {"log_time": np.log(np.minimum(time, end))} if log else {"time": np.minimum(time, end)}
    return ({"x": x} if covariates else {}) | seen | {"event": (time <= end).astype(int)}


def interval(x: Tensor, low: Tensor, high: Tensor) -> None:
    """Seen between two visits only: log-normal times in intervals, the last one without end."""
    w = pyro.sample("w", dist.Normal(0.0, 2.0).expand([x.shape[-1]]).to_event(1))
    sigma = pyro.sample("sigma", dist.HalfNormal(1.0))
    time = dist.LogNormal(x @ w, sigma)
    with pyro.plate("data", len(x)):
        pyro.factor("seen", (time.cdf(high) - time.cdf(low)).clamp_min(1e-300).log())


def visits(rng: Rng) -> Data:
    """Yearly visits, of which some are missed."""
    x = design(rng, 500, 1)
    time = np.exp(x @ [1.0, 0.4] + 0.6 * rng.normal(size=500))
    width = rng.choice([1.0, 2.0], size=500)
    low = np.maximum(np.floor(time / width) * width, 0.01)
    return {"x": x, "low": low, "high": np.floor(time / width) * width + width}


def current_status(age: Tensor, ill: Tensor) -> None:
    """Only whether it has happened by now: left or right censored."""
    mu = pyro.sample("mu", dist.Normal(3.0, 1.0))
    sigma = pyro.sample("sigma", dist.HalfNormal(1.0))
    p = dist.LogNormal(mu, sigma).cdf(age)
    with pyro.plate("data", len(age)):
        pyro.sample("ill", dist.Bernoulli(p), obs=ill)


def ages(rng: Rng) -> Data:
    """Ages from 5 to 80 and an antibody test."""
    age = rng.uniform(5, 80, size=600)
    return {"age": age, "ill": (np.exp(3.2 + 0.6 * rng.normal(size=600)) < age).astype(float)}


def delayed(x: Tensor, entry: Tensor, time: Tensor, event: Tensor) -> None:
    """Left truncation: who died before entering was never seen."""
    w = pyro.sample("w", dist.Normal(0.0, 1.0).expand([x.shape[-1]]).to_event(1))
    shape = pyro.sample("shape", dist.LogNormal(0.0, 0.5))
    scale = (x @ w).exp()
    log_hazard = shape.log() + (shape - 1) * time.log() - shape * scale.log()
    with pyro.plate("data", len(time)):
        pyro.factor("time", event * log_hazard - (time / scale) ** shape + (entry / scale) ** shape)


def late(rng: Rng) -> Data:
    """Entry at random times; the dead are left out."""
    data = censored(rng)
    entry = rng.uniform(0, 1, size=500)
    kept = entry < data["time"]
    return {name: column[kept] for name, column in {**data, "entry": entry}.items()}


def piecewise(interval: Tensor, x: Tensor, exposure: Tensor, deaths: Tensor) -> None:
    """Piecewise constant hazards as a Poisson regression with exposure, one row a person and interval."""
    base = pyro.sample("base", dist.Normal(-1.0, 1.0).expand([4]).to_event(1))
    w = pyro.sample("w", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(x)):
        pyro.sample("deaths", dist.Poisson(exposure * (base[interval] + w * x).exp()), obs=deaths)


def split(rng: Rng) -> Data:
    """Follow-up split at 0.5, 1 and 2 years."""
    data = censored(rng, covariates=1)
    edges = np.array([0.0, 0.5, 1.0, 2.0, np.inf])
    part = np.clip(data["time"][:, None], edges[:-1], edges[1:]) - edges[:-1]
    row, interval = np.nonzero(part > 0)
    ended = np.asarray(np.searchsorted(edges, data["time"])) - 1
    return {
        "interval": interval,
        "x": data["x"][row, 1],
        "exposure": part[row, interval],
        "deaths": data["event"][row] * (interval == ended[row]),
    }


def causes(x: Tensor, time: Tensor, cause: Tensor) -> None:
    """Competing risks: two causes and none (0), each with its own constant hazard."""
    w = pyro.sample("w", dist.Normal(0.0, 1.0).expand([x.shape[-1], 2]).to_event(2))
    log_rate = x @ w
    one = torch.where(cause == 1, log_rate[:, 0], torch.zeros_like(time))
    two = torch.where(cause == 2, log_rate[:, 1], torch.zeros_like(time))
    with pyro.plate("data", len(time)):
        pyro.factor("time", one + two - time * log_rate.exp().sum(-1))


def deaths(rng: Rng) -> Data:
    """The first of two causes and the end of the study."""
    x = design(rng, 500, 1)
    times = np.column_stack(
        [rng.exponential(np.exp(-(x @ [[-0.5, -1.0], [0.5, -0.3]]))), rng.uniform(0.5, 3, size=500)]
    )
    return {"x": x, "time": times.min(1), "cause": np.array([1, 2, 0])[times.argmin(1)]}


def frailty(clinic: Tensor, x: Tensor, time: Tensor, event: Tensor, *, clinics: int) -> None:
    """A frailty for every clinic, log-normal."""
    w = pyro.sample("w", dist.Normal(0.0, 1.0).expand([x.shape[-1]]).to_event(1))
    shape = pyro.sample("shape", dist.LogNormal(0.0, 0.5))
    tau = pyro.sample("tau", dist.HalfNormal(0.5))
    z = pyro.sample("z", dist.Normal(0.0, 1.0).expand([clinics]).to_event(1))
    log_scale = x @ w + tau * z[clinic]
    log_hazard = shape.log() + (shape - 1) * time.log() - shape * log_scale
    with pyro.plate("data", len(time)):
        pyro.factor("time", event * log_hazard - (time / log_scale.exp()) ** shape)


def clinics(rng: Rng, count: int = 8) -> Data:
    """Eight clinics."""
    clinic, x = rng.integers(count, size=800), design(rng, 800, 1)
    effect = 0.4 * rng.normal(size=count)
    time = np.exp(x @ [0.5, 0.4] + effect[clinic]) * rng.weibull(1.5, size=800)
    end = rng.uniform(0.5, 5, size=800)
    return {"clinic": clinic, "x": x, "time": np.minimum(time, end), "event": (time <= end).astype(int)}


def shared_gamma(time: Tensor, event: Tensor, x: Tensor) -> None:
    """Pairs of twins (rows) with a gamma frailty that is integrated out."""
    w = pyro.sample("w", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
    k = pyro.sample("k", dist.Gamma(2.0, 1.0))
    log_rate = w[0] + w[1] * x
    count, hazard = event.sum(-1), (log_rate.exp() * time).sum(-1)
    with pyro.plate("data", len(time)):
        marginal = torch.lgamma(k + count) - torch.lgamma(k) + k * k.log() - (k + count) * (k + hazard).log()
        pyro.factor("time", (event * log_rate).sum(-1) + marginal)


def twins(rng: Rng) -> Data:
    """Twins: two times a row."""
    x = rng.normal(size=(400, 2))
    rate = rng.gamma(2.0, 0.5, size=(400, 1)) * np.exp(-0.3 + 0.5 * x)
    time, end = rng.exponential(1 / rate), rng.uniform(0.5, 4, size=(400, 2))
    return {"x": x, "time": np.minimum(time, end), "event": (time <= end).astype(float)}


def cure(x: Tensor, time: Tensor, event: Tensor) -> None:
    """Some are cured and never die."""
    a = pyro.sample("a", dist.Normal(0.0, 1.5).expand([x.shape[-1]]).to_event(1))
    rate = pyro.sample("rate", dist.LogNormal(0.0, 1.0))
    log_ill, log_cured = torch.nn.functional.logsigmoid(x @ a), torch.nn.functional.logsigmoid(-(x @ a))
    alive = torch.logaddexp(log_cured, log_ill - rate * time)
    with pyro.plate("data", len(time)):
        pyro.factor("time", torch.where(event == 1, log_ill + rate.log() - rate * time, alive))


def cured(rng: Rng) -> Data:
    """Half are cured."""
    x = design(rng, 500, 1)
    ill = rng.uniform(size=500) < 1 / (1 + np.exp(-(x @ [0.2, 0.8])))
    time = np.where(ill, rng.exponential(1.0, size=500), np.inf)
    end = rng.uniform(2, 6, size=500)
    return {"x": x, "time": np.minimum(time, end), "event": (time <= end).astype(int)}


FORMS = (
    Form("exponential", "exponential, right-censored", exponential, partial(censored, shape=1.0, covariates=0)),
    Form("exponential_masked", "exponential, censored by mask", exponential_masked, partial(censored, shape=1.0)),
    Form("weibull", "Weibull, right-censored", weibull, censored),
    Form("log_normal", "log-normal times, censored by where", log_normal, censored),
    Form("log_logistic", "log-logistic times", log_logistic, partial(censored, log=True)),
    Form("interval", "interval censoring", interval, visits),
    Form("current_status", "current status", current_status, ages),
    Form("delayed", "Weibull, delayed entry", delayed, late),
    Form("piecewise", "piecewise exponential", piecewise, split, size=24),
    Form("causes", "competing risks", causes, deaths, size=16),
    Form("frailty", "frailty by clinic", partial(frailty, clinics=8), clinics, size=50),
    Form("shared_gamma", "gamma frailty of twins", shared_gamma, twins),
    Form("cure", "cure model", cure, cured),
)
