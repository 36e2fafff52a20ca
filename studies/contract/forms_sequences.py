"""Rows that are sequences, tables with missing entries, animals seen again."""

import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from studies.contract.form import Data, Form, Rng


def autoregression(y: Tensor, *, order: int = 1) -> None:
    """AR(p): one sequence a row, from its first p values on."""
    a = pyro.sample("a", dist.Normal(0.0, 1.0))
    b = pyro.sample("b", dist.Normal(0.0, 0.5).expand([order]).to_event(1))
    sigma = pyro.sample("sigma", dist.HalfNormal(1.0))
    steps = y.shape[-1]
    mean = a + sum(b[k] * y[:, order - 1 - k : steps - 1 - k] for k in range(order))
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Normal(mean, sigma).to_event(1), obs=y[:, order:])


def second_order(y: Tensor) -> None:
    """AR(2)."""
    autoregression(y, order=2)


def series(rng: Rng, second: float = 0.0, rows: int = 100, steps: int = 12) -> Data:
    """Stationary sequences."""
    y = np.zeros((rows, steps + 20))
    for t in range(2, steps + 20):
        y[:, t] = 0.3 + 0.5 * y[:, t - 1] + second * y[:, t - 2] + 0.7 * rng.normal(size=rows)
    return {"y": y[:, -steps:]}


def two_lags(rng: Rng) -> Data:
    """Sequences with two lags."""
    return series(rng, second=-0.3)


def lagged(y: Tensor, before: Tensor) -> None:
    """AR(1) as people put it into a table: a column and its lag."""
    a = pyro.sample("a", dist.Normal(0.0, 1.0))
    b = pyro.sample("b", dist.Normal(0.0, 0.5))
    sigma = pyro.sample("sigma", dist.HalfNormal(1.0))
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Normal(a + b * before, sigma), obs=y)


def one_series(rng: Rng) -> pd.DataFrame:
    """One long series in a frame, its lag from ``shift``."""
    y = pd.Series(np.concatenate(series(rng, rows=1, steps=400)["y"]))
    return pd.DataFrame({"y": y, "before": y.shift()}).dropna()


def vector_autoregression(y: Tensor) -> None:
    """VAR(1) of two variables; columns (rows, T, 2)."""
    b = pyro.sample("b", dist.Normal(0.0, 0.5).expand([2, 2]).to_event(2))
    sigma = pyro.sample("sigma", dist.HalfNormal(1.0).expand([2]).to_event(1))
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Normal(y[:, :-1] @ b.T, sigma).to_event(2), obs=y[:, 1:])


def pairs(rng: Rng) -> Data:
    """Eighty sequences of two variables."""
    y = np.zeros((80, 30, 2))
    for t in range(1, 30):
        y[:, t] = y[:, t - 1] @ np.array([[0.6, 0.2], [-0.1, 0.5]]).T + 0.5 * rng.normal(size=(80, 2))
    return {"y": y[:, 20:]}


def local_level(y: Tensor) -> None:
    """A random walk seen with noise, the walk integrated out."""
    walk = pyro.sample("walk", dist.HalfNormal(1.0))
    noise = pyro.sample("noise", dist.HalfNormal(1.0))
    start = pyro.sample("start", dist.Normal(0.0, 2.0))
    t = torch.arange(1.0, y.shape[-1] + 1)
    cov = walk**2 * torch.minimum(t[:, None], t) + noise**2 * torch.eye(len(t))
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.MultivariateNormal(start.expand(len(t)), cov), obs=y)


def walks(rng: Rng) -> Data:
    """Walks of eight steps."""
    return {"y": 1 + 0.5 * rng.normal(size=(150, 8)).cumsum(1) + 0.7 * rng.normal(size=(150, 8))}


def hidden_states(y: Tensor) -> None:
    """A hidden Markov model of two states, by the forward algorithm."""
    stay = pyro.sample("stay", dist.Beta(5.0, 2.0).expand([2]).to_event(1))
    low = pyro.sample("low", dist.Normal(0.0, 1.0))
    gap = pyro.sample("gap", dist.LogNormal(0.5, 0.5))
    sigma = pyro.sample("sigma", dist.LogNormal(-0.5, 0.5))
    transition = torch.stack([torch.stack([stay[0], 1 - stay[0]]), torch.stack([1 - stay[1], stay[1]])]).log()
    emission = dist.Normal(torch.stack([low, low + gap]), sigma).log_prob(y[..., None])
    forward = emission[:, 0] - np.log(2)
    for t in range(1, y.shape[-1]):
        forward = torch.logsumexp(forward[:, :, None] + transition, 1) + emission[:, t]
    with pyro.plate("data", len(y)):
        pyro.factor("y", torch.logsumexp(forward, -1))


def regimes(rng: Rng) -> Data:
    """Sequences of ten with two levels."""
    state = np.zeros((100, 10), dtype=int)
    state[:, 0] = rng.integers(2, size=100)
    for t in range(1, 10):
        stays = rng.uniform(size=100) < np.array([0.8, 0.7])[state[:, t - 1]]
        state[:, t] = np.where(stays, state[:, t - 1], 1 - state[:, t - 1])
    return {"y": 2.0 * state + 0.6 * rng.normal(size=(100, 10))}


def garch(r: Tensor) -> None:
    """GARCH(1, 1) of returns, one window a row."""
    base = pyro.sample("base", dist.LogNormal(-2.0, 0.7))
    shock = pyro.sample("shock", dist.Beta(2.0, 8.0))
    memory = pyro.sample("memory", dist.Beta(5.0, 3.0))
    variance = [base / (1 - 0.8 * memory)]
    for t in range(1, r.shape[-1]):
        variance.append(base + shock * r[:, t - 1] ** 2 + 0.8 * memory * variance[-1])
    scale = torch.stack(torch.broadcast_tensors(*variance), -1).sqrt()
    with pyro.plate("data", len(r)):
        pyro.sample("r", dist.Normal(0.0, scale).to_event(1), obs=r)


def returns(rng: Rng) -> Data:
    """Windows of fifteen days."""
    r = np.zeros((150, 15))
    variance = np.full(150, 0.3)
    for t in range(15):
        r[:, t] = np.sqrt(variance) * rng.normal(size=150)
        variance = 0.1 + 0.2 * r[:, t] ** 2 + 0.5 * variance
    return {"r": r}


def markov(before: Tensor, after: Tensor | None = None) -> None:
    """A Markov chain of three states, as pairs of a state and the next one."""
    p = pyro.sample("p", dist.Dirichlet(torch.ones(3, 3)).to_event(1))
    with pyro.plate("data", len(before)):
        pyro.sample("after", dist.Categorical(p[before]), obs=after)


def transitions(rng: Rng) -> Data:
    """Moves between three states."""
    before = rng.integers(3, size=600)
    p = np.array([[0.7, 0.2, 0.1], [0.3, 0.5, 0.2], [0.2, 0.3, 0.5]]).cumsum(1)
    return {"before": before, "after": (rng.uniform(size=(600, 1)) > p[before]).sum(1)}


def dogs(shocked: Tensor) -> None:
    """Dogs that learn to avoid a shock: one dog a row, 25 trials."""
    a = pyro.sample("a", dist.Normal(-0.3, 0.2))
    b = pyro.sample("b", dist.Normal(-0.1, 0.1))
    before = shocked.cumsum(-1) - shocked
    avoided = torch.arange(25.0) - before
    with pyro.plate("data", len(shocked)):
        pyro.sample("y", dist.Bernoulli(torch.sigmoid(1.0 + 4 * (a * avoided + b * before))).to_event(1), obs=shocked)


def kennel(rng: Rng) -> Data:
    """Sixty dogs."""
    y = np.zeros((60, 25))
    for t in range(25):
        before = y[:, :t].sum(1)
        y[:, t] = rng.uniform(size=60) < 1 / (1 + np.exp(-(1 - 1.2 * (t - before) / 4 - 0.3 * before / 4)))
    return {"shocked": y}


def change_point(y: Tensor) -> None:
    """Counts that change their rate at one unknown time, common to all rows and summed out in each."""
    early = pyro.sample("early", dist.Gamma(2.0, 0.5))
    late = pyro.sample("late", dist.Gamma(2.0, 0.5))
    steps = y.shape[-1]
    first, second = dist.Poisson(early).log_prob(y).cumsum(-1), dist.Poisson(late).log_prob(y).cumsum(-1)
    at = first + second[:, -1:] - second
    with pyro.plate("data", len(y)):
        pyro.factor("y", torch.logsumexp(at, -1) - np.log(steps))


def accidents(rng: Rng) -> Data:
    """Mines with their own year of the new law."""
    at = rng.integers(1, 13, size=80)
    return {"y": rng.poisson(np.where(np.arange(12) < at[:, None], 3.0, 1.0))}


def missing_entries(y: Tensor) -> None:
    """Three correlated variables, any of them missing: Pyro's own distribution for that."""
    mu = pyro.sample("mu", dist.Normal(0.0, 2.0).expand([3]).to_event(1))
    scale = pyro.sample("scale", dist.HalfNormal(2.0).expand([3]).to_event(1))
    chol = pyro.sample("chol", dist.LKJCholesky(3, 1.0))
    tril = scale[:, None] * chol
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.NanMaskedMultivariateNormal(mu, tril @ tril.T), obs=y)


def laboratory(rng: Rng) -> Data:
    """A fifth of the entries is missing, never a whole row."""
    cov = [[1.0, 0.5, 0.2], [0.5, 1.0, 0.3], [0.2, 0.3, 0.5]]
    y = rng.multivariate_normal([1.0, 0.0, -1.0], cov, size=400)
    y[rng.uniform(size=(400, 3)) < 0.2] = np.nan
    return {"y": y[~np.isnan(y).all(1)]}


def nan_masked(x: Tensor, y: Tensor) -> None:
    """Two outcomes apart, Pyro's own normal for missing ones."""
    w = pyro.sample("w", dist.Normal(0.0, 2.0).expand([2]).to_event(1))
    sigma = pyro.sample("sigma", dist.HalfNormal(1.0).expand([2]).to_event(1))
    with pyro.plate("data", len(x)):
        pyro.sample("y", dist.NanMaskedNormal(x[:, None] * w, sigma).to_event(1), obs=y)


def outcomes(rng: Rng) -> Data:
    """Two outcomes, a fifth of them missing."""
    x = rng.normal(size=400)
    y = x[:, None] * [0.5, -0.8] + [0.5, 0.7] * rng.normal(size=(400, 2))
    y[rng.uniform(size=(400, 2)) < 0.2] = np.nan
    return {"x": x, "y": y}


def recapture(seen: Tensor) -> None:
    """Cormack-Jolly-Seber: one history an animal, caught first on the first occasion."""
    survival = pyro.sample("survival", dist.Beta(1.0, 1.0))
    catch = pyro.sample("catch", dist.Beta(1.0, 1.0))
    chances = [torch.ones(())]  # of never being seen again, by occasion
    for _ in range(seen.shape[-1] - 1):
        chances.insert(0, 1 - survival + survival * (1 - catch) * chances[0])
    alive = seen.flip(-1).cumsum(-1).flip(-1) > 0
    last = alive & ~torch.cat([alive[:, 1:], torch.zeros_like(alive[:, :1])], -1)
    step = survival.log() + torch.where(seen == 1, catch.log(), torch.log1p(-catch))
    known = torch.where(alive, step, torch.zeros(()))[:, 1:].sum(-1)
    with pyro.plate("data", len(seen)):
        pyro.factor("seen", known + torch.where(last, torch.stack(chances).log(), torch.zeros(())).sum(-1))


def dippers(rng: Rng) -> Data:
    """Three hundred birds on six occasions."""
    alive, seen = np.ones(300, dtype=bool), np.ones((300, 6), dtype=int)
    for t in range(1, 6):
        alive &= rng.uniform(size=300) < 0.7
        seen[:, t] = alive & (rng.uniform(size=300) < 0.5)
    return {"seen": seen}


def occupancy(detected: Tensor, visits: Tensor, forest: Tensor) -> None:
    """Sites that a species may not occupy: detections in some visits, occupancy summed out."""
    a = pyro.sample("a", dist.Normal(0.0, 1.5).expand([2]).to_event(1))
    p = pyro.sample("p", dist.Beta(1.0, 1.0))
    occupied = torch.nn.functional.logsigmoid(a[0] + a[1] * forest)
    empty = torch.nn.functional.logsigmoid(-(a[0] + a[1] * forest))
    seen = occupied + dist.Binomial(visits, p).log_prob(detected)
    with pyro.plate("data", len(forest)):
        pyro.factor("detected", torch.where(detected == 0, torch.logaddexp(seen, empty), seen))


def surveys(rng: Rng) -> Data:
    """Four hundred plots with three to six visits."""
    forest, visits = rng.normal(size=400), rng.integers(3, 7, size=400)
    occupied = rng.uniform(size=400) < 1 / (1 + np.exp(-(0.3 + 0.8 * forest)))
    return {"forest": forest, "visits": visits, "detected": rng.binomial(visits, 0.4) * occupied}


FORMS = (
    Form("autoregression", "AR(1) sequences", autoregression, series),
    Form("second_order", "AR(2) sequences", second_order, two_lags),
    Form("lagged", "AR(1), one series in a frame", lagged, one_series),
    Form("vector_autoregression", "VAR(1) sequences", vector_autoregression, pairs),
    Form("local_level", "local level integrated out", local_level, walks),
    Form("hidden_states", "hidden Markov model", hidden_states, regimes),
    Form("garch", "GARCH(1, 1) windows", garch, returns),
    Form("markov", "Markov chain of categories", markov, transitions, size=12),
    Form("dogs", "dogs that learn", dogs, kennel),
    Form("change_point", "change point summed out", change_point, accidents),
    Form("missing_entries", "multivariate normal, entries missing", missing_entries, laboratory, size=30),
    Form("nan_masked", "NanMaskedNormal outcomes", nan_masked, outcomes),
    Form("recapture", "capture-recapture", recapture, dippers),
    Form("occupancy", "occupancy summed out", occupancy, surveys),
)
