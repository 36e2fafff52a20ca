"""Mixtures, their memberships summed out."""

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from models import gaussian_mixture
from studies.contract.form import Data, Form, Rng, design


def heights(rng: Rng) -> Data:
    """Two overlapping normals."""
    low = rng.uniform(size=500) < 0.3
    return {"y": np.where(low, -1.5, 1.5) + np.where(low, 0.7, 1.0) * rng.normal(size=500)}


def regressions(x: Tensor, y: Tensor) -> None:
    """Two lines, told apart by the order of their slopes."""
    a = pyro.sample("a", dist.Normal(0.0, 2.0).expand([2]).to_event(1))
    slope = pyro.sample("slope", dist.Normal(0.0, 2.0))
    gap = pyro.sample("gap", dist.LogNormal(0.5, 0.5))
    sigma = pyro.sample("sigma", dist.LogNormal(-0.5, 0.5))
    share = pyro.sample("share", dist.Beta(2.0, 2.0))
    means = a + torch.stack([slope, slope + gap]) * x[:, None]
    parts = dist.Categorical(torch.stack([share, 1 - share]).expand(len(x), 2))
    with pyro.plate("data", len(x)):
        pyro.sample("y", dist.MixtureSameFamily(parts, dist.Normal(means, sigma)), obs=y)


def crossing(rng: Rng) -> Data:
    """Two lines that cross."""
    x, first = rng.normal(size=500), rng.uniform(size=500) < 0.4
    return {"x": x, "y": np.where(first, 0.5 - x, -0.5 + 1.2 * x) + 0.5 * rng.normal(size=500)}


def rates(y: Tensor) -> None:
    """Two Poisson rates."""
    low = pyro.sample("low", dist.Gamma(2.0, 1.0))
    gap = pyro.sample("gap", dist.Gamma(4.0, 0.7))
    share = pyro.sample("share", dist.Beta(2.0, 2.0))
    parts = dist.Categorical(torch.stack([share, 1 - share]))
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.MixtureSameFamily(parts, dist.Poisson(torch.stack([low, low + gap]))), obs=y)


def calls(rng: Rng) -> Data:
    """Calls on quiet and on busy days."""
    return {"y": rng.poisson(np.where(rng.uniform(size=500) < 0.6, 1.5, 7.0))}


def contaminated(x: Tensor, y: Tensor | None = None) -> None:
    """A line with a share of outliers of ten times the noise."""
    w = pyro.sample("w", dist.Normal(0.0, 2.0).expand([x.shape[-1]]).to_event(1))
    sigma = pyro.sample("sigma", dist.LogNormal(-0.5, 0.5))
    share = pyro.sample("share", dist.Beta(1.0, 9.0))
    scales = torch.stack([sigma, 10 * sigma])
    parts = dist.Categorical(torch.stack([1 - share, share]).expand(len(x), 2))
    with pyro.plate("data", len(x)):
        noise = dist.Normal((x @ w)[:, None].expand(len(x), 2), scales)
        pyro.sample("y", dist.MixtureSameFamily(parts, noise), obs=y)


def spoiled(rng: Rng) -> Data:
    """One row in twenty is spoiled."""
    x = design(rng, 500, 1)
    noise = np.where(rng.uniform(size=500) < 0.05, 5.0, 0.5) * rng.normal(size=500)
    return {"x": x, "y": x @ [0.5, 0.8] + noise}


def clusters(y: Tensor) -> None:
    """Two clusters in the plane, ordered by their first coordinate."""
    first = pyro.sample("first", dist.Normal(0.0, 2.0))
    gap = pyro.sample("gap", dist.LogNormal(0.5, 0.5))
    second = pyro.sample("second", dist.Normal(0.0, 2.0).expand([2]).to_event(1))
    sigma = pyro.sample("sigma", dist.LogNormal(-0.5, 0.5).expand([2]).to_event(1))
    share = pyro.sample("share", dist.Beta(2.0, 2.0))
    means = torch.stack([torch.stack([first, first + gap]), second], -1)
    parts = dist.Categorical(torch.stack([share, 1 - share]))
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.MixtureSameFamily(parts, dist.Normal(means, sigma).to_event(1)), obs=y)


def flowers(rng: Rng) -> Data:
    """Two kinds of flowers."""
    kind = rng.uniform(size=400) < 0.4
    centre = np.where(kind[:, None], [-1.0, 0.5], [1.0, -0.5])
    return {"y": centre + [0.6, 0.5] * rng.normal(size=(400, 2))}


def latent_class(test: Tensor) -> None:
    """Four tests without a gold standard: two latent classes."""
    share = pyro.sample("share", dist.Beta(2.0, 2.0))
    sensitivity = pyro.sample("sensitivity", dist.Beta(6.0, 2.0).expand([4]).to_event(1))
    false = pyro.sample("false", dist.Beta(1.0, 6.0).expand([4]).to_event(1))
    ill = dist.Bernoulli(sensitivity).log_prob(test).sum(-1) + share.log()
    well = dist.Bernoulli(false).log_prob(test).sum(-1) + torch.log1p(-share)
    with pyro.plate("data", len(test)):
        pyro.factor("test", torch.logaddexp(ill, well))


def screening(rng: Rng) -> Data:
    """Four tests of a thousand people."""
    ill = rng.uniform(size=(1000, 1)) < 0.35
    p = np.where(ill, [0.9, 0.8, 0.85, 0.7], [0.05, 0.1, 0.1, 0.15])
    return {"test": (rng.uniform(size=(1000, 4)) < p).astype(float)}


def raters(label: Tensor) -> None:
    """Dawid and Skene: three raters give each thing one of three labels."""
    share = pyro.sample("share", dist.Dirichlet(torch.full((3,), 3.0)))
    prior = 1.0 + 5.0 * torch.eye(3)
    confusion = pyro.sample("confusion", dist.Dirichlet(prior.expand(3, 3, 3)).to_event(2))
    seen = torch.stack([confusion[r][:, label[:, r]].T.log() for r in range(3)]).sum(0)
    with pyro.plate("data", len(label)):
        pyro.factor("label", torch.logsumexp(share.log() + seen, -1))


def labels(rng: Rng) -> Data:
    """Raters that are right four times in five."""
    true = rng.choice(3, size=(400, 1), p=[0.5, 0.3, 0.2])
    wrong = (true + rng.integers(1, 3, size=(400, 3))) % 3
    return {"label": np.where(rng.uniform(size=(400, 3)) < 0.8, true, wrong)}


def inflated_beta(x: Tensor, y: Tensor) -> None:
    """Shares of which some are exactly zero or one."""
    a = pyro.sample("a", dist.Dirichlet(torch.ones(3)))
    w = pyro.sample("w", dist.Normal(0.0, 1.0).expand([x.shape[-1]]).to_event(1))
    k = pyro.sample("k", dist.Gamma(2.0, 0.1))
    p = torch.sigmoid(x @ w)
    inside = (y > 0) & (y < 1)
    share = dist.Beta(p * k, (1 - p) * k).log_prob(torch.where(inside, y, torch.full_like(y, 0.5)))
    edge = torch.where(y == 0, a[0].log(), a[2].log())
    with pyro.plate("data", len(x)):
        pyro.factor("y", torch.where(inside, a[1].log() + share, edge))


def adherence(rng: Rng) -> Data:
    """Adherence to a medicine."""
    x, kind = design(rng, 500, 1), rng.choice(3, size=500, p=[0.15, 0.6, 0.25])
    p = 1 / (1 + np.exp(-(x @ [0.3, 0.5])))
    return {"x": x, "y": np.select([kind == 0, kind == 2], [0.0, 1.0], rng.beta(10 * p, 10 * (1 - p)))}


FORMS = (
    Form("gaussian_mixture", "Gaussian mixture", gaussian_mixture.model, heights, size=20),
    Form("regressions", "mixture of regressions", regressions, crossing, size=24),
    Form("rates", "Poisson mixture", rates, calls),
    Form("contaminated", "outliers as a mixture", contaminated, spoiled, size=20),
    Form("clusters", "clusters in the plane", clusters, flowers, size=24),
    Form("latent_class", "latent classes of tests", latent_class, screening, size=32),
    Form("raters", "Dawid-Skene raters", raters, labels, size=60),
    Form("inflated_beta", "zero-one-inflated beta by hand", inflated_beta, adherence, size=16),
)
