"""Ten families of posteriors with divergences known by quadrature, and sets of rows that miss them by little or much.

Each has one or two latents. A set is made of the real rows with changed values and weights, or of a few rows that see
only part of the posterior; nothing was distilled, so that errors of every size occur.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

import bayesdd

Columns = dict[str, Tensor]


class Family(NamedTuple):
    """A model with its rows, sets to certify, and the box of unconstrained latents for quadrature.

    Attributes:
        task: The task.
        some: ``(generator) -> (rows, weights)``: one set; None where sets are made otherwise.
        box: Ends of each latent, unconstrained: in ``fine`` the grid is dense.
        fine: Ends of the dense part.
        points: Points of the dense part of each latent, where there are two: at most a posterior sd apart.
    """

    task: bayesdd.Task
    some: Callable[[np.random.Generator], tuple[Columns, Tensor]] | None
    box: list[tuple[float, float]]
    fine: list[tuple[float, float]]
    points: tuple[int, ...] = ()


def normal_location(y: Tensor) -> None:
    """Mean of a normal with known sd."""
    mean = pyro.sample("mean", dist.Normal(0.0, 10.0))
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Normal(mean, 1.0), obs=y)


def normal(y: Tensor) -> None:
    """Mean and sd of a normal."""
    mean = pyro.sample("mean", dist.Normal(0.0, 10.0))
    sd = pyro.sample("sd", dist.LogNormal(0.0, 1.0))
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Normal(mean, sd), obs=y)


def proportion(y: Tensor) -> None:
    """A proportion, also where no success was seen: the tail is exponential in the logit."""
    p = pyro.sample("p", dist.Beta(1.0, 1.0))
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Bernoulli(p), obs=y)


def rate(y: Tensor) -> None:
    """A rate, also where no event was seen: the tail is exponential in the log."""
    r = pyro.sample("r", dist.Gamma(0.5, 0.5))
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Poisson(r), obs=y)


def robust(y: Tensor) -> None:
    """Location of a Student-t with two degrees of freedom and few rows: a heavy tail, sometimes two modes."""
    mean = pyro.sample("mean", dist.StudentT(2.0, 0.0, 5.0))
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.StudentT(2.0, mean, 1.0), obs=y)


def logistic(x: Tensor, y: Tensor) -> None:
    """Two coefficients of a logistic regression."""
    w = pyro.sample("w", dist.Normal(0.0, 2.0).expand([2]).to_event(1))
    with pyro.plate("data", len(x)):
        pyro.sample("y", dist.Bernoulli(logits=x @ w), obs=y)


def mirrored(x: Tensor, y: Tensor) -> None:
    """A parameter known up to its sign, or nearly so: two modes."""
    t = pyro.sample("t", dist.Normal(0.0, 3.0))
    with pyro.plate("data", len(x)):
        pyro.sample("y", dist.Normal(t**2 + t * x, 0.5), obs=y)


def mixture(y: Tensor) -> None:
    """Two means of a mixture with known shares: labels switched give a second, lower mode."""
    m = pyro.sample("m", dist.Normal(0.0, 3.0).expand([2]).to_event(1))
    with pyro.plate("data", len(y)):
        shares = dist.Categorical(torch.tensor([0.6, 0.4], dtype=torch.float64))
        pyro.sample("y", dist.MixtureSameFamily(shares, dist.Normal(m, 0.7)), obs=y)


def slab(y: Tensor, robust: Tensor) -> None:
    """Rows that may be outliers: a spike on a slab as wide as the prior."""
    t = pyro.sample("t", dist.Normal(0.0, 300.0))
    with pyro.plate("data", len(y)):
        near = dist.Normal(t, 1.0).log_prob(y)
        far = torch.full_like(near, math.log(0.05) - math.log(100.0))
        pyro.factor("row", torch.where(robust > 0.5, torch.logaddexp(near + math.log(0.95), far), near))


def frequency(t: Tensor, y: Tensor) -> None:
    """Amplitude and frequency of a sinusoid at whole times: aliases are modes of their own."""
    a = pyro.sample("a", dist.Normal(0.0, 2.0))
    omega = pyro.sample("omega", dist.Normal(0.0, 3.0))
    with pyro.plate("data", len(t)):
        pyro.sample("y", dist.Normal(a * (omega * t).sin(), 0.5), obs=y)


def family(name: str, seed: int) -> Family:
    """One of the ten families, its rows drawn by the seed."""
    rng = np.random.default_rng(seed)
    return globals()[f"_{name}"](rng)


NAMES = (
    "normal_location",
    "normal",
    "proportion",
    "rate",
    "robust",
    "logistic",
    "mirrored",
    "mixture",
    "slab",
    "frequency",
)


def _moved(columns: dict[str, np.ndarray], moved: str, scale: float) -> Callable:
    """Sets of the same rows: one column shifted, weights changed, by amounts over four orders of magnitude."""

    def some(rng: np.random.Generator) -> tuple[Columns, Tensor]:
        size = 10 ** rng.uniform(-3, 0)
        n = len(columns[moved])
        rows = dict(columns)
        if scale:
            rows[moved] = rows[moved] + size * scale * (rng.normal() + 0.3 * rng.normal(size=n))
        weight = np.exp(0.3 * size * (rng.normal() + rng.normal(size=n)))
        return {key: torch.tensor(value) for key, value in rows.items()}, torch.tensor(weight)

    return some


def _normal_location(rng: np.random.Generator) -> Family:
    y = rng.normal(1.0, 1.0, 40)
    task = bayesdd.Task(normal_location, {"y": y})
    return Family(task, _moved({"y": y}, "y", 0.4), [(-30, 30)], [(-3, 5)])


def _normal(rng: np.random.Generator) -> Family:
    y = rng.normal(1.0, 2.0, 30)
    return Family(
        bayesdd.Task(normal, {"y": y}),
        _moved({"y": y}, "y", 0.5),
        [(-8, 10), (-1.5, 3.0)],
        [(-2, 4), (0.0, 1.5)],
        (301, 301),
    )


def _proportion(rng: np.random.Generator) -> Family:
    y = np.zeros(300) if rng.uniform() < 0.5 else (rng.uniform(size=300) < 0.02).astype(float)

    def some(rng: np.random.Generator) -> tuple[Columns, Tensor]:
        size = 10 ** rng.uniform(-3, 0)
        rows = {"y": torch.tensor([float(y.mean()) * math.exp(0.3 * size * rng.normal())])}
        return rows, torch.tensor([300.0 * math.exp(size * rng.normal())])

    return Family(bayesdd.Task(proportion, {"y": y}), some, [(-40, 5)], [(-14, -2)])


def _rate(rng: np.random.Generator) -> Family:
    y = np.zeros(10) if rng.uniform() < 0.5 else rng.poisson(0.3, 10).astype(float)

    def some(rng: np.random.Generator) -> tuple[Columns, Tensor]:
        size = 10 ** rng.uniform(-3, 0)
        rows = {"y": torch.tensor([float(y.mean()) * math.exp(0.3 * size * rng.normal())])}
        return rows, torch.tensor([10.0 * math.exp(size * rng.normal())])

    return Family(bayesdd.Task(rate, {"y": y}), some, [(-80, 6)], [(-16, 3)])


def _robust(rng: np.random.Generator) -> Family:
    y = rng.standard_t(2, 6) + (rng.choice([0.0, 8.0], 6) if rng.uniform() < 0.5 else 0.0)
    task = bayesdd.Task(robust, {"y": y})
    return Family(task, _moved({"y": y}, "y", 0.5), [(-2000, 2000)], [(-25, 30)])


def _logistic(rng: np.random.Generator) -> Family:
    x = np.column_stack([np.ones(100), rng.normal(size=100)])
    y = (rng.uniform(size=100) < 1 / (1 + np.exp(-x @ [0.5, 1.0]))).astype(float)
    return Family(
        bayesdd.Task(logistic, {"x": x, "y": y}),
        _moved({"y": y, "x": x[:, :]}, "y", 0.0),
        [(-4, 5), (-3, 6)],
        [(-1, 2), (-0.5, 3)],
        (301, 301),
    )


def _mirrored(rng: np.random.Generator) -> Family:
    x = (0.2 if rng.uniform() < 0.5 else 0.03) * rng.normal(size=30)
    y = 4.0 + 2.0 * x + 0.5 * rng.normal(size=30)
    whole = _moved({"x": x, "y": y}, "y", 0.1)

    def some(rng: np.random.Generator) -> tuple[Columns, Tensor]:
        if rng.uniform() < 0.7:
            return whole(rng)
        centre = 0.0 if rng.uniform() < 0.5 else 2.0  # at x = 0 nothing tells the modes apart; at x = 2 everything does
        return {"x": torch.tensor([centre]), "y": torch.tensor([4.0 + 2.0 * centre])}, torch.tensor([30.0])

    return Family(bayesdd.Task(mirrored, {"x": x, "y": y}), some, [(-8, 8)], [(-4, 4)])


def _mixture(rng: np.random.Generator) -> Family:
    y = np.where(rng.uniform(size=15) < 0.6, -1.0, 1.5) + 0.7 * rng.normal(size=15)
    task = bayesdd.Task(mixture, {"y": y})
    return Family(task, _moved({"y": y}, "y", 0.2), [(-8, 8), (-8, 8)], [(-4, 4), (-4, 4)], (301, 301))


def _slab(rng: np.random.Generator) -> Family:
    y, robust = rng.normal(3.0, 1.0, 2), np.ones(2)
    whole = _moved({"y": y, "robust": robust}, "y", 0.1)

    def some(rng: np.random.Generator) -> tuple[Columns, Tensor]:
        rows, weight = whole(rng)
        if rng.uniform() < 0.5:
            rows["robust"] = torch.zeros(2, dtype=torch.float64)
        return rows, weight

    return Family(bayesdd.Task(slab, {"y": y, "robust": robust}), some, [(-2500, 2500)], [(-30, 40)])


def _frequency(rng: np.random.Generator) -> Family:
    t = np.arange(1.0, 13.0) + (0.1 * rng.normal(size=12) if rng.uniform() < 0.5 else 0.0)
    y = 1.2 * np.sin(1.1 * t) + 0.5 * rng.normal(size=12)
    whole = _moved({"t": t, "y": y}, "y", 0.2)

    def some(rng: np.random.Generator) -> tuple[Columns, Tensor]:
        rows, weight = whole(rng)
        if rng.uniform() < 0.3:
            few = torch.tensor(rng.permutation(12)[:9])
            return {key: value[few] for key, value in rows.items()}, weight[few] * 12 / 9
        return rows, weight

    return Family(
        bayesdd.Task(frequency, {"t": t, "y": y}), some, [(-5, 5), (-14, 14)], [(-5, 5), (-14, 14)], (201, 1401)
    )
