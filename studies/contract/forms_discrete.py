"""Binary outcomes, categories and counts."""

from functools import partial

import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from studies.contract.form import Data, Form, Rng, design


def expit(value: np.ndarray) -> np.ndarray:
    """The inverse of the logit."""
    return 1 / (1 + np.exp(-value))


def logistic(x: Tensor, y: Tensor | None = None) -> None:
    """Logistic regression."""
    w = pyro.sample("w", dist.Normal(0.0, 2.0).expand([x.shape[-1]]).to_event(1))
    with pyro.plate("data", len(x)):
        pyro.sample("y", dist.Bernoulli(logits=x @ w), obs=y)


def answers(rng: Rng) -> Data:
    """Yes and no, as integers."""
    x = design(rng, 600, 3)
    return {"x": x, "y": (rng.uniform(size=600) < expit(x @ [0.3, 0.8, -0.5, 0.2])).astype(int)}


def probit(x: Tensor, y: Tensor | None = None) -> None:
    """Probit regression."""
    w = pyro.sample("w", dist.Normal(0.0, 2.0).expand([x.shape[-1]]).to_event(1))
    p = dist.Normal(0.0, 1.0).cdf(x @ w)
    with pyro.plate("data", len(x)):
        pyro.sample("y", dist.Bernoulli(p.clamp(1e-10, 1 - 1e-10)), obs=y)


def cloglog(x: Tensor, y: Tensor | None = None) -> None:
    """Complementary log-log link."""
    w = pyro.sample("w", dist.Normal(0.0, 2.0).expand([x.shape[-1]]).to_event(1))
    p = -torch.expm1(-(x @ w).exp())
    with pyro.plate("data", len(x)):
        pyro.sample("y", dist.Bernoulli(p.clamp(1e-10, 1 - 1e-10)), obs=y)


def guessing(x: Tensor, y: Tensor | None = None) -> None:
    """Logistic regression in which one answer in some is a guess."""
    w = pyro.sample("w", dist.Normal(0.0, 2.0).expand([x.shape[-1]]).to_event(1))
    guess = pyro.sample("guess", dist.Beta(1.0, 9.0))
    with pyro.plate("data", len(x)):
        pyro.sample("y", dist.Bernoulli(guess / 2 + (1 - guess) * torch.sigmoid(x @ w)), obs=y)


def clinic(age: Tensor, smoker: Tensor, ward: Tensor, died: Tensor | None = None) -> None:
    """Columns one by one, as a data frame has them: a yes/no covariate and a ward among three."""
    a = pyro.sample("a", dist.Normal(0.0, 2.0).expand([3]).to_event(1))
    b = pyro.sample("b", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
    with pyro.plate("data", len(age)):
        pyro.sample("died", dist.Bernoulli(logits=a[ward] + b[0] * (age - 60) / 10 + b[1] * smoker), obs=died)


def patients(rng: Rng) -> pd.DataFrame:
    """A frame with strings, booleans, and columns that the model does not take."""
    age, smoker = rng.uniform(30, 90, size=600).round(1), rng.uniform(size=600) < 0.4
    ward = rng.integers(3, size=600)
    died = rng.uniform(size=600) < expit(np.array([-1.0, -0.5, 0.0])[ward] + 0.5 * (age - 60) / 10 + 0.6 * smoker)
    names = np.array(["east", "north", "south"])
    return pd.DataFrame(
        {"id": np.arange(600), "age": age, "smoker": smoker, "ward": names[ward], "died": died, "note": "none"}
    )


def trials(x: Tensor, n: Tensor, y: Tensor | None = None) -> None:
    """Binomial with a number of trials in each row."""
    w = pyro.sample("w", dist.Normal(0.0, 2.0).expand([x.shape[-1]]).to_event(1))
    with pyro.plate("data", len(x)):
        pyro.sample("y", dist.Binomial(n, logits=x @ w), obs=y)


def beta_binomial(x: Tensor, n: Tensor, y: Tensor | None = None) -> None:
    """Overdispersed trials."""
    w = pyro.sample("w", dist.Normal(0.0, 2.0).expand([x.shape[-1]]).to_event(1))
    k = pyro.sample("k", dist.Gamma(2.0, 0.1))
    p = torch.sigmoid(x @ w)
    with pyro.plate("data", len(x)):
        pyro.sample("y", dist.BetaBinomial(p * k, (1 - p) * k, n), obs=y)


def litters(rng: Rng, spread: bool) -> Data:
    """Litters of 2 to 15."""
    x, n = design(rng, 300, 2), rng.integers(2, 16, size=300)
    p = expit(x @ [-0.3, 0.5, 0.2])
    return {"x": x, "n": n, "y": rng.binomial(n, rng.beta(8 * p, 8 * (1 - p)) if spread else p)}


def ordinal(x: Tensor, y: Tensor | None = None) -> None:
    """Five ordered answers."""
    w = pyro.sample("w", dist.Normal(0.0, 2.0).expand([x.shape[-1]]).to_event(1))
    first = pyro.sample("first", dist.Normal(-1.0, 2.0))
    steps = pyro.sample("steps", dist.LogNormal(0.0, 1.0).expand([3]).to_event(1))
    cuts = torch.cat([first[None], first + steps.cumsum(0)])
    with pyro.plate("data", len(x)):
        pyro.sample("y", dist.OrderedLogistic(x @ w, cuts), obs=y)


def agreement(rng: Rng) -> Data:
    """Answers from 0 to 4."""
    x = rng.normal(size=(500, 2))
    latent = x @ [0.8, -0.5] + rng.logistic(size=500)
    return {"x": x, "y": np.digitize(latent, [-1.5, -0.3, 0.6, 1.8])}


def softmax(x: Tensor, y: Tensor | None = None) -> None:
    """Three classes, the first one the reference."""
    w = pyro.sample("w", dist.Normal(0.0, 1.0).expand([x.shape[-1], 2]).to_event(2))
    logits = torch.cat([torch.zeros(len(x), 1), x @ w], -1)
    with pyro.plate("data", len(x)):
        pyro.sample("y", dist.Categorical(logits=logits), obs=y)


def classes(rng: Rng) -> Data:
    """Classes 0 to 2."""
    x = design(rng, 500, 1)
    return {"x": x, "y": (x @ [[0, 0.4, -0.2], [0, 0.7, -0.5]] + rng.gumbel(size=(500, 3))).argmax(1)}


def choice(price: Tensor, quality: Tensor, chosen: Tensor | None = None) -> None:
    """Conditional logit: attributes of three alternatives in each row."""
    b = pyro.sample("b", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
    brand = pyro.sample("brand", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
    utility = b[0] * price + b[1] * quality + torch.cat([torch.zeros(1), brand])
    with pyro.plate("data", len(price)):
        pyro.sample("chosen", dist.Categorical(logits=utility), obs=chosen)


def shoppers(rng: Rng) -> Data:
    """Prices, qualities and choices."""
    price, quality = rng.uniform(1, 3, size=(500, 3)), rng.normal(size=(500, 3))
    utility = -0.8 * price + 0.5 * quality + [0.0, 0.3, -0.2]
    return {"price": price, "quality": quality, "chosen": (utility + rng.gumbel(size=(500, 3))).argmax(1)}


def multinomial(x: Tensor, y: Tensor | None = None) -> None:
    """Counts of three parties in districts of 50 votes."""
    w = pyro.sample("w", dist.Normal(0.0, 1.0).expand([x.shape[-1], 2]).to_event(2))
    logits = torch.cat([torch.zeros(len(x), 1), x @ w], -1)
    with pyro.plate("data", len(x)):
        pyro.sample("y", dist.Multinomial(50, logits=logits), obs=y)


def dirichlet_multinomial(x: Tensor, y: Tensor | None = None) -> None:
    """The same, overdispersed."""
    w = pyro.sample("w", dist.Normal(0.0, 1.0).expand([x.shape[-1], 2]).to_event(2))
    k = pyro.sample("k", dist.Gamma(2.0, 0.1))
    p = torch.softmax(torch.cat([torch.zeros(len(x), 1), x @ w], -1), -1)
    with pyro.plate("data", len(x)):
        pyro.sample("y", dist.DirichletMultinomial(k * p, 50), obs=y)


def districts(rng: Rng) -> Data:
    """Votes for three parties."""
    x = design(rng, 200, 1)
    p = np.exp(x @ [[0, 0.4, -0.2], [0, 0.3, -0.5]])
    p = np.stack([rng.dirichlet(20 * q) for q in p / p.sum(1, keepdims=True)])
    return {"x": x, "y": rng.multinomial(50, p)}


def poisson(x: Tensor, y: Tensor | None = None) -> None:
    """Poisson regression."""
    w = pyro.sample("w", dist.Normal(0.0, 1.0).expand([x.shape[-1]]).to_event(1))
    with pyro.plate("data", len(x)):
        pyro.sample("y", dist.Poisson((x @ w).exp()), obs=y)


def exposure(x: Tensor, years: Tensor, y: Tensor | None = None) -> None:
    """Claims against years insured."""
    w = pyro.sample("w", dist.Normal(0.0, 1.0).expand([x.shape[-1]]).to_event(1))
    with pyro.plate("data", len(x)):
        pyro.sample("y", dist.Poisson(years * (x @ w).exp()), obs=y)


def negative_binomial(x: Tensor, y: Tensor | None = None) -> None:
    """Counts with a gamma-distributed rate."""
    w = pyro.sample("w", dist.Normal(0.0, 1.0).expand([x.shape[-1]]).to_event(1))
    shape = pyro.sample("shape", dist.Gamma(2.0, 0.5))
    with pyro.plate("data", len(x)):
        pyro.sample("y", dist.GammaPoisson(shape, shape / (x @ w).exp()), obs=y)


def visits(rng: Rng, shape: float = 0.0, zeros: float = 0.0, years: bool = False) -> Data:
    """Counts; with gamma rates, with extra zeros, with skewed exposures."""
    x = design(rng, 600, 2)
    rate = np.exp(x @ [0.5, 0.4, -0.3])
    exposed = rng.lognormal(0.0, 1.0, size=600) if years else np.ones(600)
    if shape:
        rate = rate * rng.gamma(shape, 1 / shape, size=600)
    y = rng.poisson(rate * exposed) * (rng.uniform(size=600) >= zeros)
    return {"x": x, "y": y} | ({"years": exposed} if years else {})


def zero_inflated(x: Tensor, y: Tensor | None = None) -> None:
    """Pyro's own zero-inflated Poisson."""
    w = pyro.sample("w", dist.Normal(0.0, 1.0).expand([x.shape[-1]]).to_event(1))
    gate = pyro.sample("gate", dist.Beta(1.0, 1.0))
    with pyro.plate("data", len(x)):
        pyro.sample("y", dist.ZeroInflatedPoisson((x @ w).exp(), gate=gate), obs=y)


def zero_inflated_by_hand(x: Tensor, y: Tensor) -> None:
    """The same, written out with the zeros told apart by the outcome."""
    w = pyro.sample("w", dist.Normal(0.0, 1.0).expand([x.shape[-1]]).to_event(1))
    gate = pyro.sample("gate", dist.Beta(1.0, 1.0))
    count = torch.log1p(-gate) + dist.Poisson((x @ w).exp()).log_prob(y)
    with pyro.plate("data", len(x)):
        pyro.factor("y", torch.where(y == 0, torch.logaddexp(gate.log(), count), count))


def hurdle(x: Tensor, y: Tensor) -> None:
    """A hurdle: whether there is any visit, and a truncated Poisson."""
    w = pyro.sample("w", dist.Normal(0.0, 1.0).expand([x.shape[-1]]).to_event(1))
    p = pyro.sample("p", dist.Beta(1.0, 1.0))
    rate = (x @ w).exp()
    some = p.log() + dist.Poisson(rate).log_prob(y) - torch.log(-torch.expm1(-rate))
    with pyro.plate("data", len(x)):
        pyro.factor("y", torch.where(y > 0, some, torch.log1p(-p)))


def truncated(x: Tensor, y: Tensor) -> None:
    """Only patients who came at all are in the table: a zero-truncated Poisson."""
    w = pyro.sample("w", dist.Normal(0.0, 1.0).expand([x.shape[-1]]).to_event(1))
    rate = (x @ w).exp()
    with pyro.plate("data", len(x)):
        pyro.sample("y", dist.Poisson(rate), obs=y)
        pyro.factor("truncation", -torch.log(-torch.expm1(-rate)))


def seen(rng: Rng) -> Data:
    """Counts without their zeros."""
    data = visits(rng)
    return {name: column[data["y"] > 0] for name, column in data.items()}


def football(home: Tensor, away: Tensor, home_goals: Tensor, away_goals: Tensor, *, teams: int) -> None:
    """Goals of two teams: attack and defence of each, an advantage at home."""
    base = pyro.sample("base", dist.Normal(0.0, 1.0))
    advantage = pyro.sample("advantage", dist.Normal(0.0, 0.5))
    attack = pyro.sample("attack", dist.Normal(0.0, 0.5).expand([teams]).to_event(1))
    defence = pyro.sample("defence", dist.Normal(0.0, 0.5).expand([teams]).to_event(1))
    with pyro.plate("data", len(home)):
        pyro.sample("h", dist.Poisson((base + advantage + attack[home] - defence[away]).exp()), obs=home_goals)
        pyro.sample("a", dist.Poisson((base + attack[away] - defence[home]).exp()), obs=away_goals)


def matches(rng: Rng, teams: int = 6) -> Data:
    """Everybody against everybody, ten times."""
    home, away = np.array([(a, b) for a in range(teams) for b in range(teams) if a != b] * 10).T
    attack, defence = rng.normal(scale=0.3, size=(2, teams))
    return {
        "home": home,
        "away": away,
        "home_goals": rng.poisson(np.exp(0.4 + attack[home] - defence[away])),
        "away_goals": rng.poisson(np.exp(0.1 + attack[away] - defence[home])),
    }


def bradley_terry(first: Tensor, second: Tensor, won: Tensor | None = None, *, players: int) -> None:
    """Pairwise comparisons."""
    skill = pyro.sample("skill", dist.Normal(0.0, 1.0).expand([players]).to_event(1))
    with pyro.plate("data", len(first)):
        pyro.sample("won", dist.Bernoulli(logits=skill[first] - skill[second]), obs=won)


def games(rng: Rng, players: int = 6) -> Data:
    """Games between six players."""
    first = rng.integers(players, size=500)
    second = (first + rng.integers(1, players, size=500)) % players
    skill = rng.normal(size=players)
    return {"first": first, "second": second, "won": rng.uniform(size=500) < expit(skill[first] - skill[second])}


FORMS = (
    Form("logistic", "logistic", logistic, answers),
    Form("probit", "probit", probit, answers),
    Form("cloglog", "complementary log-log", cloglog, answers),
    Form("guessing", "logistic with guesses", guessing, answers),
    Form("clinic", "data frame: strings, booleans, columns not taken", clinic, patients, size=18),
    Form("trials", "binomial, varying trials", trials, partial(litters, spread=False)),
    Form("beta_binomial", "beta-binomial", beta_binomial, partial(litters, spread=True)),
    Form("ordinal", "ordinal", ordinal, agreement),
    Form("softmax", "categorical softmax", softmax, classes),
    Form("choice", "conditional logit", choice, shoppers),
    Form("multinomial", "multinomial counts", multinomial, districts),
    Form("dirichlet_multinomial", "Dirichlet-multinomial counts", dirichlet_multinomial, districts),
    Form("poisson", "Poisson", poisson, visits),
    Form("exposure", "Poisson with exposure", exposure, partial(visits, years=True)),
    Form("negative_binomial", "negative binomial", negative_binomial, partial(visits, shape=2.0)),
    Form("zero_inflated", "zero-inflated Poisson", zero_inflated, partial(visits, zeros=0.3)),
    Form("zero_inflated_by_hand", "zero-inflated Poisson by hand", zero_inflated_by_hand, partial(visits, zeros=0.3)),
    Form("hurdle", "hurdle Poisson by hand", hurdle, partial(visits, zeros=0.3)),
    Form("truncated", "zero-truncated Poisson", truncated, seen),
    Form("football", "goals of two teams", partial(football, teams=6), matches, size=60),
    Form("bradley_terry", "Bradley-Terry", partial(bradley_terry, players=6), games, size=30),
)
