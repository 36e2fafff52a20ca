"""Regressions of a continuous outcome."""

import math
from functools import partial

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from models import linear_regression
from studies.contract.form import Data, Form, Rng, design


def linear(x: Tensor, y: Tensor | None = None) -> None:
    """Linear regression, unknown noise."""
    w = pyro.sample("w", dist.Normal(0.0, 2.0).expand([x.shape[-1]]).to_event(1))
    sigma = pyro.sample("sigma", dist.HalfNormal(2.0))
    with pyro.plate("data", len(x)):
        pyro.sample("y", dist.Normal(x @ w, sigma), obs=y)


def lines(rng: Rng, noise: float = 0.7) -> Data:
    """A line in three covariates."""
    x = design(rng, 500, 3)
    return {"x": x, "y": x @ [1.0, 0.5, -0.8, 0.2] + noise * rng.normal(size=500)}


def robust(x: Tensor, y: Tensor | None = None) -> None:
    """Student-t noise, degrees of freedom unknown."""
    w = pyro.sample("w", dist.Normal(0.0, 2.0).expand([x.shape[-1]]).to_event(1))
    sigma = pyro.sample("sigma", dist.HalfNormal(2.0))
    nu = pyro.sample("nu", dist.Gamma(2.0, 0.1))
    with pyro.plate("data", len(x)):
        pyro.sample("y", dist.StudentT(nu, x @ w, sigma), obs=y)


def outliers(rng: Rng) -> Data:
    """A line with Student-t noise of four degrees of freedom."""
    x = design(rng, 800, 2)
    return {"x": x, "y": x @ [1.0, 0.5, -0.8] + 0.5 * rng.standard_t(4, size=800)}


def heteroscedastic(x: Tensor, y: Tensor | None = None) -> None:
    """The log of the noise is linear too."""
    w = pyro.sample("w", dist.Normal(0.0, 2.0).expand([x.shape[-1]]).to_event(1))
    v = pyro.sample("v", dist.Normal(0.0, 1.0).expand([x.shape[-1]]).to_event(1))
    with pyro.plate("data", len(x)):
        pyro.sample("y", dist.Normal(x @ w, (x @ v).exp()), obs=y)


def spreading(rng: Rng) -> Data:
    """Noise that grows with the first covariate."""
    x = design(rng, 600, 2)
    return {"x": x, "y": x @ [1.0, 0.5, -0.8] + np.exp(x @ [-0.5, 0.4, 0.0]) * rng.normal(size=600)}


def quadratic(age: Tensor, y: Tensor | None = None) -> None:
    """A quadratic in age, in years: powers are made inside the model."""
    t = (age - 50.0) / 10.0
    a = pyro.sample("a", dist.Normal(0.0, 5.0).expand([3]).to_event(1))
    sigma = pyro.sample("sigma", dist.Exponential(1.0))
    with pyro.plate("data", len(age)):
        pyro.sample("y", dist.Normal(a[0] + a[1] * t + a[2] * t**2, sigma), obs=y)


def ages(rng: Rng) -> Data:
    """Ages from 20 to 90."""
    age = rng.uniform(20, 90, size=400)
    t = (age - 50) / 10
    return {"age": age, "y": 2 + 0.5 * t - 0.2 * t**2 + rng.normal(size=400)}


def gamma(x: Tensor, y: Tensor | None = None) -> None:
    """Gamma outcome, log link."""
    w = pyro.sample("w", dist.Normal(0.0, 1.0).expand([x.shape[-1]]).to_event(1))
    shape = pyro.sample("shape", dist.LogNormal(0.0, 1.0))
    with pyro.plate("data", len(x)):
        pyro.sample("y", dist.Gamma(shape, shape / (x @ w).exp()), obs=y)


def positive(rng: Rng) -> Data:
    """Costs with a log-linear mean."""
    x = design(rng, 600, 2)
    return {"x": x, "y": rng.gamma(2.0, np.exp(x @ [0.5, 0.3, -0.4]) / 2.0)}


def inverse_gaussian(x: Tensor, y: Tensor) -> None:
    """Inverse Gaussian outcome, its density written out."""
    w = pyro.sample("w", dist.Normal(0.0, 1.0).expand([x.shape[-1]]).to_event(1))
    shape = pyro.sample("shape", dist.LogNormal(0.0, 1.0))
    mean = (x @ w).exp()
    log_density = 0.5 * (shape / (2 * math.pi * y**3)).log() - shape * (y - mean) ** 2 / (2 * mean**2 * y)
    with pyro.plate("data", len(x)):
        pyro.factor("y", log_density)


def first_passages(rng: Rng) -> Data:
    """First passage times."""
    x = design(rng, 600, 1)
    return {"x": x, "y": rng.wald(np.exp(x @ [0.3, 0.3]), 2.0)}


def beta(x: Tensor, y: Tensor | None = None) -> None:
    """Beta regression: mean by a logit, precision unknown."""
    w = pyro.sample("w", dist.Normal(0.0, 1.0).expand([x.shape[-1]]).to_event(1))
    precision = pyro.sample("precision", dist.Gamma(2.0, 0.1))
    mean = torch.sigmoid(x @ w)
    with pyro.plate("data", len(x)):
        pyro.sample("y", dist.Beta(mean * precision, (1 - mean) * precision), obs=y)


def shares(rng: Rng) -> Data:
    """Shares strictly between 0 and 1."""
    x = design(rng, 500, 2)
    mean = 1 / (1 + np.exp(-(x @ [0.2, 0.6, -0.3])))
    return {"x": x, "y": rng.beta(12 * mean, 12 * (1 - mean))}


def von_mises(x: Tensor, y: Tensor | None = None) -> None:
    """Directions against covariates, by the tangent link."""
    mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
    w = pyro.sample("w", dist.Normal(0.0, 1.0).expand([x.shape[-1]]).to_event(1))
    kappa = pyro.sample("kappa", dist.Gamma(2.0, 0.5))
    with pyro.plate("data", len(x)):
        pyro.sample("y", dist.VonMises(mu + 2 * torch.atan(x @ w), kappa), obs=y)


def directions(rng: Rng) -> Data:
    """Wind directions in radians."""
    x = rng.normal(size=(400, 1))
    return {"x": x, "y": rng.vonmises(0.3 + 2 * np.arctan(0.3 * x[:, 0]), 4.0)}


def quantile(x: Tensor, y: Tensor | None = None) -> None:
    """The 0.8 quantile by an asymmetric Laplace likelihood."""
    w = pyro.sample("w", dist.Normal(0.0, 2.0).expand([x.shape[-1]]).to_event(1))
    scale = pyro.sample("scale", dist.HalfNormal(1.0))
    with pyro.plate("data", len(x)):
        pyro.sample("y", dist.AsymmetricLaplace(x @ w, scale, math.sqrt(0.2 / 0.8)), obs=y)


def tobit(x: Tensor, y: Tensor) -> None:
    """Hours of work that cannot be negative: zeros are censored."""
    w = pyro.sample("w", dist.Normal(0.0, 2.0).expand([x.shape[-1]]).to_event(1))
    sigma = pyro.sample("sigma", dist.HalfNormal(2.0))
    latent = dist.Normal(x @ w, sigma)
    with pyro.plate("data", len(x)):
        pyro.factor(
            "y", torch.where(y > 0, latent.log_prob(y), latent.cdf(torch.zeros_like(y)).clamp_min(1e-300).log())
        )


def hours(rng: Rng) -> Data:
    """Outcomes cut at zero."""
    x = design(rng, 600, 2)
    return {"x": x, "y": np.maximum(0.0, x @ [0.5, 0.8, -0.5] + rng.normal(size=600))}


def detection(x: Tensor, y: Tensor, below: Tensor) -> None:
    """A laboratory value with a limit of detection; ``below`` is 1 where only the limit is known."""
    w = pyro.sample("w", dist.Normal(0.0, 2.0).expand([x.shape[-1]]).to_event(1))
    sigma = pyro.sample("sigma", dist.HalfNormal(2.0))
    normal = dist.Normal(x @ w, sigma)
    with pyro.plate("data", len(x)):
        pyro.sample("y", normal.mask(below == 0), obs=y)
        pyro.factor("limit", below * normal.cdf(y).clamp_min(1e-300).log())


def limits(rng: Rng) -> Data:
    """Log concentrations of which a third lie below one of two limits."""
    x = design(rng, 600, 1)
    value, limit = x @ [0.3, 0.7] + 0.8 * rng.normal(size=600), rng.choice([-0.5, 0.2], size=600)
    return {"x": x, "y": np.maximum(value, limit), "below": (value < limit).astype(int)}


def costs(x: Tensor, y: Tensor) -> None:
    """Two parts: whether there are costs at all, and their log."""
    a = pyro.sample("a", dist.Normal(0.0, 2.0).expand([x.shape[-1]]).to_event(1))
    b = pyro.sample("b", dist.Normal(0.0, 2.0).expand([x.shape[-1]]).to_event(1))
    sigma = pyro.sample("sigma", dist.HalfNormal(2.0))
    some = y > 0
    size = dist.LogNormal(x @ b, sigma).log_prob(torch.where(some, y, torch.ones_like(y)))
    with pyro.plate("data", len(x)):
        pyro.sample("some", dist.Bernoulli(logits=x @ a), obs=some.to(y.dtype))
        pyro.factor("size", torch.where(some, size, torch.zeros_like(size)))


def bills(rng: Rng) -> Data:
    """Zeros and log-normal costs."""
    x = design(rng, 700, 1)
    some = rng.uniform(size=700) < 1 / (1 + np.exp(-(x @ [0.5, 0.7])))
    return {"x": x, "y": np.where(some, np.exp(x @ [1.0, 0.4] + 0.6 * rng.normal(size=700)), 0.0)}


def measurement_error(w: Tensor, y: Tensor) -> None:
    """A covariate seen with known error, itself integrated out: both outcomes are jointly normal."""
    a = pyro.sample("a", dist.Normal(0.0, 2.0))
    b = pyro.sample("b", dist.Normal(0.0, 2.0))
    sigma = pyro.sample("sigma", dist.HalfNormal(1.0))
    mu = pyro.sample("mu", dist.Normal(0.0, 2.0))
    tau = pyro.sample("tau", dist.HalfNormal(2.0))
    variance, slope = tau**2 + 0.5**2, b * tau**2 / (tau**2 + 0.5**2)
    with pyro.plate("data", len(w)):
        pyro.sample("w", dist.Normal(mu, variance.sqrt()), obs=w)
        pyro.sample(
            "y", dist.Normal(a + b * mu + slope * (w - mu), (sigma**2 + b * (b - slope) * tau**2).sqrt()), obs=y
        )


def blurred(rng: Rng) -> Data:
    """Exposure measured with error 0.5."""
    x = 1 + rng.normal(size=500)
    return {"w": x + 0.5 * rng.normal(size=500), "y": 0.5 + 0.8 * x + 0.6 * rng.normal(size=500)}


def horseshoe(x: Tensor, y: Tensor | None = None) -> None:
    """Horseshoe prior over twelve effects."""
    k = x.shape[-1]
    tau = pyro.sample("tau", dist.HalfCauchy(0.3))
    local = pyro.sample("local", dist.HalfCauchy(1.0).expand([k]).to_event(1))
    z = pyro.sample("z", dist.Normal(0.0, 1.0).expand([k]).to_event(1))
    sigma = pyro.sample("sigma", dist.HalfNormal(1.0))
    with pyro.plate("data", len(x)):
        pyro.sample("y", dist.Normal(x @ (tau * local * z), sigma), obs=y)


def sparse(rng: Rng) -> Data:
    """Two effects of six."""
    x = rng.normal(size=(500, 6))
    return {"x": x, "y": x @ [1.0, -0.8, 0, 0, 0, 0] + rng.normal(size=500)}


def two_outcomes(x: Tensor, y: Tensor | None = None) -> None:
    """Two correlated outcomes, an LKJ prior over their correlation."""
    w = pyro.sample("w", dist.Normal(0.0, 2.0).expand([x.shape[-1], 2]).to_event(2))
    scale = pyro.sample("scale", dist.HalfNormal(2.0).expand([2]).to_event(1))
    chol = pyro.sample("chol", dist.LKJCholesky(2, 2.0))
    with pyro.plate("data", len(x)):
        pyro.sample("y", dist.MultivariateNormal(x @ w, scale_tril=scale[:, None] * chol), obs=y)


def pairs(rng: Rng) -> Data:
    """Weight and height, say."""
    x = design(rng, 500, 1)
    noise = rng.multivariate_normal([0, 0], [[1.0, 0.4], [0.4, 0.5]], size=500)
    return {"x": x, "y": x @ [[1.0, 0.3], [0.5, -0.4]] + noise}


def mixed_outcomes(x: Tensor, score: Tensor, passed: Tensor) -> None:
    """A score and whether the exam was passed, with one common effect."""
    w = pyro.sample("w", dist.Normal(0.0, 1.0).expand([x.shape[-1]]).to_event(1))
    cut = pyro.sample("cut", dist.Normal(0.0, 2.0))
    sigma = pyro.sample("sigma", dist.HalfNormal(1.0))
    with pyro.plate("data", len(x)):
        pyro.sample("score", dist.Normal(x @ w, sigma), obs=score)
        pyro.sample("passed", dist.Bernoulli(logits=2 * (x @ w) - cut), obs=passed)


def exams(rng: Rng) -> Data:
    """Scores and passes, the latter as booleans."""
    x = design(rng, 500, 2)
    ability = x @ [0.3, 0.8, -0.4]
    passed = rng.uniform(size=500) < 1 / (1 + np.exp(0.5 - 2 * ability))
    return {"x": x, "score": ability + 0.8 * rng.normal(size=500), "passed": passed}


def partly_missing(x: Tensor, y: Tensor) -> None:
    """Outcomes of which some are missing, masked."""
    w = pyro.sample("w", dist.Normal(0.0, 2.0).expand([x.shape[-1]]).to_event(1))
    sigma = pyro.sample("sigma", dist.HalfNormal(2.0))
    seen = ~y.isnan()
    with pyro.plate("data", len(x)), pyro.poutine.mask(mask=seen):  # type: ignore[call-overload]
        pyro.sample("y", dist.Normal(x @ w, sigma), obs=y.nan_to_num())


def gaps(rng: Rng) -> Data:
    """A line of which a quarter of the outcomes are missing."""
    data = dict(lines(rng))
    return data | {"y": np.where(rng.uniform(size=500) < 0.25, np.nan, data["y"])}


def frequencies(x: Tensor, y: Tensor, times: Tensor) -> None:
    """Rows that stand for several people: a column of frequency weights."""
    w = pyro.sample("w", dist.Normal(0.0, 2.0).expand([x.shape[-1]]).to_event(1))
    with pyro.plate("data", len(x)), pyro.poutine.scale(scale=times):
        pyro.sample("y", dist.Bernoulli(logits=x @ w), obs=y)


def tallies(rng: Rng) -> Data:
    """A table of counts of yes and no by two yes/no covariates."""
    x = np.array([[1, a, b] for a in (0, 1) for b in (0, 1) for _ in (0, 1)], dtype=float)
    y = np.tile([0.0, 1.0], 4)
    p = 1 / (1 + np.exp(-(x @ [-0.5, 0.8, 0.4])))
    return {"x": x, "y": y, "times": rng.poisson(100 * np.where(y == 1, p, 1 - p)).astype(float)}


known_noise = partial(linear_regression.model, noise=0.7)

FORMS = (
    Form("linear", "linear, unknown noise", linear, lines),
    Form(
        "linear_known",
        "linear, known noise",
        known_noise,
        lines,
        exact=partial(linear_regression.exact, noise=0.7),
    ),
    Form("robust", "Student-t noise", robust, outliers),
    Form("heteroscedastic", "heteroscedastic", heteroscedastic, spreading),
    Form("quadratic", "quadratic in age", quadratic, ages),
    Form("gamma", "gamma, log link", gamma, positive),
    Form("inverse_gaussian", "inverse Gaussian by factor", inverse_gaussian, first_passages),
    Form("beta", "beta regression", beta, shares),
    Form("von_mises", "von Mises regression", von_mises, directions),
    Form("quantile", "quantile, asymmetric Laplace", quantile, outliers, size=40),
    Form("tobit", "Tobit, zeros censored", tobit, hours),
    Form("detection", "limit of detection, by mask", detection, limits),
    Form("costs", "two-part costs", costs, bills),
    Form("measurement_error", "covariate with measurement error", measurement_error, blurred),
    Form("horseshoe", "horseshoe", horseshoe, sparse),
    Form("two_outcomes", "two outcomes, LKJ", two_outcomes, pairs),
    Form("mixed_outcomes", "normal and binary outcome", mixed_outcomes, exams),
    Form("partly_missing", "outcomes partly missing", partly_missing, gaps),
    Form("frequencies", "frequency weights as a column", frequencies, tallies, size=6),
)
