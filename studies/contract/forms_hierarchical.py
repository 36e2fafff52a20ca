"""Groups with partial pooling, meta-analysis, item response."""

from functools import partial

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from models import varying_intercepts
from studies.contract.form import Data, Form, Rng


def centred(group: Tensor, y: Tensor | None = None, *, groups: int) -> None:
    """Varying intercepts, written centred, in a plate over groups."""
    mu = pyro.sample("mu", dist.Normal(0.0, 2.0))
    tau = pyro.sample("tau", dist.HalfNormal(1.0))
    sigma = pyro.sample("sigma", dist.HalfNormal(1.0))
    with pyro.plate("groups", groups):
        a = pyro.sample("a", dist.Normal(mu, tau))
    with pyro.plate("data", len(group)):
        pyro.sample("y", dist.Normal(a[group], sigma), obs=y)


def groups(rng: Rng, count: int = 8, covariates: int = 0, counts: bool = False) -> Data:
    """Eight groups of unequal size."""
    group = rng.choice(count, size=800, p=rng.dirichlet(np.full(count, 5.0)))
    mean = 0.2 + 0.6 * rng.normal(size=count)[group]
    x = rng.normal(size=(800, covariates))
    mean = mean + x @ np.full(covariates, 0.4)
    y = rng.poisson(np.exp(mean)) if counts else mean + 0.8 * rng.normal(size=800)
    return {"group": group, "y": y} | ({"x": x} if covariates else {})


def poisson_intercepts(group: Tensor, x: Tensor, y: Tensor | None = None, *, groups: int) -> None:
    """Counts with varying intercepts, non-centred."""
    mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
    tau = pyro.sample("tau", dist.HalfNormal(1.0))
    w = pyro.sample("w", dist.Normal(0.0, 1.0))
    with pyro.plate("groups", groups):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(group)):
        pyro.sample("y", dist.Poisson((mu + tau * z[group] + w * x[:, 0]).exp()), obs=y)


def slopes(group: Tensor, x: Tensor, y: Tensor | None = None, *, groups: int) -> None:
    """Intercepts and slopes that vary together, an LKJ prior over their correlation."""
    mu = pyro.sample("mu", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
    tau = pyro.sample("tau", dist.HalfNormal(1.0).expand([2]).to_event(1))
    chol = pyro.sample("chol", dist.LKJCholesky(2, 2.0))
    sigma = pyro.sample("sigma", dist.HalfNormal(1.0))
    z = pyro.sample("z", dist.Normal(0.0, 1.0).expand([groups, 2]).to_event(2))
    effect = mu + z @ (tau[:, None] * chol).T
    with pyro.plate("data", len(x)):
        pyro.sample("y", dist.Normal(effect[group, 0] + effect[group, 1] * x, sigma), obs=y)


def trends(rng: Rng, count: int = 6) -> Data:
    """Lines of six groups."""
    group, x = rng.integers(count, size=600), rng.normal(size=600)
    effect = rng.multivariate_normal([0.5, -0.3], [[0.25, 0.1], [0.1, 0.16]], size=count)
    return {"group": group, "x": x, "y": effect[group, 0] + effect[group, 1] * x + 0.7 * rng.normal(size=600)}


def radon(county: Tensor, floor: Tensor, y: Tensor | None = None, *, uranium: Tensor) -> None:
    """Radon in houses: counties by their uranium, which belongs to the county and not to the row."""
    g = pyro.sample("g", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
    b = pyro.sample("b", dist.Normal(0.0, 1.0))
    tau = pyro.sample("tau", dist.HalfNormal(1.0))
    sigma = pyro.sample("sigma", dist.HalfNormal(1.0))
    with pyro.plate("counties", len(uranium)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
    a = g[0] + g[1] * uranium + tau * z
    with pyro.plate("data", len(floor)):
        pyro.sample("y", dist.Normal(a[county] + b * floor, sigma), obs=y)


URANIUM = torch.linspace(-1, 1, 10, dtype=torch.float64)


def houses(rng: Rng) -> Data:
    """Ten counties."""
    county, floor = rng.integers(10, size=700), (rng.uniform(size=700) < 0.2).astype(float)
    a = 1.4 + 0.7 * URANIUM.numpy() + 0.3 * rng.normal(size=10)
    return {"county": county, "floor": floor, "y": a[county] - 0.7 * floor + 0.7 * rng.normal(size=700)}


def crossed(person: Tensor, item: Tensor, y: Tensor | None = None, *, persons: int, items: int) -> None:
    """Crossed effects of raters and things rated."""
    mu = pyro.sample("mu", dist.Normal(0.0, 2.0))
    scale = pyro.sample("scale", dist.HalfNormal(1.0).expand([3]).to_event(1))
    a = pyro.sample("a", dist.Normal(0.0, 1.0).expand([persons]).to_event(1))
    b = pyro.sample("b", dist.Normal(0.0, 1.0).expand([items]).to_event(1))
    with pyro.plate("data", len(person)):
        pyro.sample("y", dist.Normal(mu + scale[0] * a[person] + scale[1] * b[item], scale[2]), obs=y)


def ratings(rng: Rng, persons: int = 6, items: int = 5) -> Data:
    """Every rater rates every thing twenty times."""
    person, item = np.array([(p, i) for p in range(persons) for i in range(items)] * 20).T
    a, b = 0.5 * rng.normal(size=persons), 0.7 * rng.normal(size=items)
    return {"person": person, "item": item, "y": 1 + a[person] + b[item] + 0.8 * rng.normal(size=len(item))}


def schools(effect: Tensor, error: Tensor) -> None:
    """Eight schools, their own effects integrated out; rows are schools."""
    mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = pyro.sample("tau", dist.HalfCauchy(5.0))
    with pyro.plate("data", len(effect)):
        pyro.sample("y", dist.Normal(mu, (tau**2 + error**2).sqrt()), obs=effect)


def coaching(rng: Rng) -> Data:
    """Rubin's table, 1981: effects of coaching and their standard errors."""
    effect = np.array([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0])
    return {"effect": effect, "error": np.array([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0])}


def rats(tumours: Tensor, n: Tensor) -> None:
    """Tumours in experiments with rats: a beta-binomial over experiments."""
    mean = pyro.sample("mean", dist.Beta(1.0, 1.0))
    size = pyro.sample("size", dist.LogNormal(2.0, 1.0))
    with pyro.plate("data", len(n)):
        pyro.sample("tumours", dist.BetaBinomial(mean * size, (1 - mean) * size, n), obs=tumours)


def experiments(rng: Rng) -> Data:
    """Seventy experiments."""
    n = rng.integers(10, 50, size=70)
    return {"n": n, "tumours": rng.binomial(n, rng.beta(2.0, 12.0, size=70))}


def growth(weight: Tensor, days: Tensor) -> None:
    """Rats' growth, five weights a row; a line of its own for every rat, integrated out."""
    mu = pyro.sample("mu", dist.Normal(0.0, 5.0).expand([2]).to_event(1))
    tau = pyro.sample("tau", dist.HalfNormal(1.0).expand([2]).to_event(1))
    sigma = pyro.sample("sigma", dist.HalfNormal(1.0))
    cov = tau[0] ** 2 + tau[1] ** 2 * days[..., :, None] * days[..., None, :] + sigma**2 * torch.eye(days.shape[-1])
    with pyro.plate("data", len(weight)):
        pyro.sample("weight", dist.MultivariateNormal(mu[0] + mu[1] * days, cov), obs=weight)


def weights(rng: Rng) -> Data:
    """Two hundred rats at five ages, in units of ten grams and two weeks."""
    days = np.tile(np.linspace(-1, 1, 5), (200, 1))
    line = rng.normal([5.0, 2.0], [0.8, 0.4], size=(200, 2))
    return {"days": days, "weight": line[:, :1] + line[:, 1:] * days + 0.3 * rng.normal(size=(200, 5))}


def rasch(person: Tensor, item: Tensor, right: Tensor | None = None, *, persons: int, items: int) -> None:
    """One-parameter item response, one row an answer."""
    ability = pyro.sample("ability", dist.Normal(0.0, 1.0).expand([persons]).to_event(1))
    difficulty = pyro.sample("difficulty", dist.Normal(0.0, 1.0).expand([items]).to_event(1))
    with pyro.plate("data", len(person)):
        pyro.sample("right", dist.Bernoulli(logits=ability[person] - difficulty[item]), obs=right)


def answers(rng: Rng, persons: int = 12, items: int = 6) -> Data:
    """Every person tries every item ten times."""
    person, item = np.array([(p, i) for p in range(persons) for i in range(items)] * 10).T
    logit = rng.normal(size=persons)[person] - rng.normal(size=items)[item]
    return {"person": person, "item": item, "right": rng.uniform(size=len(item)) < 1 / (1 + np.exp(-logit))}


def two_parameters(right: Tensor) -> None:
    """Two-parameter item response in wide form: rows are persons, whose ability is integrated out on a grid."""
    items = right.shape[-1]
    a = pyro.sample("a", dist.LogNormal(0.0, 0.5).expand([items]).to_event(1))
    b = pyro.sample("b", dist.Normal(0.0, 1.0).expand([items]).to_event(1))
    ability = torch.linspace(-4, 4, 21)
    log_share = torch.log_softmax(-(ability**2) / 2, 0)
    logits = a * (ability[:, None] - b)
    answer = dist.Bernoulli(logits=logits).log_prob(right[:, None, :]).sum(-1)
    with pyro.plate("data", len(right)):
        pyro.factor("right", torch.logsumexp(log_share + answer, -1))


def tests(rng: Rng, items: int = 5) -> Data:
    """A thousand persons, five items."""
    a, b = np.exp(0.3 * rng.normal(size=items)), rng.normal(size=items)
    logit = a * (rng.normal(size=(1000, 1)) - b)
    return {"right": (rng.uniform(size=logit.shape) < 1 / (1 + np.exp(-logit))).astype(float)}


FORMS = (
    Form(
        "intercepts",
        "varying intercepts",
        partial(varying_intercepts.model, groups=8),
        partial(groups, covariates=2),
        size=40,
    ),
    Form("centred", "varying intercepts, centred", partial(centred, groups=8), groups, size=30),
    Form(
        "poisson_intercepts",
        "Poisson, varying intercepts",
        partial(poisson_intercepts, groups=8),
        partial(groups, covariates=1, counts=True),
        size=40,
    ),
    Form("slopes", "varying slopes, LKJ", partial(slopes, groups=6), trends, size=50),
    Form("radon", "radon, predictors of counties", partial(radon, uranium=URANIUM), houses, size=50),
    Form("crossed", "crossed effects", partial(crossed, persons=6, items=5), ratings, size=60),
    Form("schools", "eight schools", schools, coaching, size=6),
    Form("rats", "rat tumours, beta-binomial", rats, experiments),
    Form("growth", "growth curves integrated out", growth, weights),
    Form("rasch", "item response, one parameter, long", partial(rasch, persons=12, items=6), answers, size=110),
    Form("two_parameters", "item response, two parameters, wide", two_parameters, tests, size=40),
)
