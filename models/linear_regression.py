r"""Linear regression of a standardised outcome.

.. math:: w \sim N(0, I_d), \qquad y_n \mid x_n, w \sim N(x_n^\top w, \sigma^2).

Covariates are standardised (first column 1) and the outcome is in units of its own standard deviation: one standard
deviation of a covariate hardly moves the outcome by more than two, which is what the unit prior says.
:func:`model` knows the noise (``functools.partial(model, noise=...)``) and has an exact posterior;
:func:`model_unknown_noise` gives it a half-normal prior of unit scale, since noise beyond the outcome's own spread is
absurd, and has none.
"""

from functools import partial

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from bayesdd.task.task import Task

NOISE = 0.5  # standard deviation of the simulated outcomes about their line


def model(x: Tensor, y: Tensor | None = None, *, noise: float | Tensor = NOISE) -> Tensor:
    """x: (N, d) standardised covariates, first column 1.  y: (N,) outcomes.  noise: their known standard deviation."""
    w = pyro.sample("w", dist.Normal(0.0, 1.0).expand([x.shape[-1]]).to_event(1))
    with pyro.plate("data", len(x)):
        return pyro.sample("y", dist.Normal(x @ w, noise), obs=y)


def model_unknown_noise(x: Tensor, y: Tensor | None = None) -> Tensor:
    """x: (N, d) standardised covariates, first column 1.  y: (N,) outcomes.  Sites ``w`` (d,) and ``sigma`` ()."""
    sigma = pyro.sample("sigma", dist.HalfNormal(1.0))
    return model(x, y, noise=sigma)


def task(rows: int = 10_000, dim: int = 10, seed: int = 0) -> Task:
    """Simulated outcomes, noise known to be 0.5."""
    return Task(partial(model, noise=NOISE), _simulate(rows, dim, seed))


def task_unknown_noise(rows: int = 10_000, dim: int = 10, seed: int = 0) -> Task:
    """The same rows as in :func:`task`, noise unknown."""
    return Task(model_unknown_noise, _simulate(rows, dim, seed))


def exact(
    x: ArrayLike | Tensor, y: ArrayLike | Tensor, weight: ArrayLike | Tensor | None = None, *, noise: float = NOISE
) -> tuple[Tensor, Tensor]:
    r"""Posterior mean and covariance of ``w`` for weighted rows and known noise.

    .. math:: C^{-1} = I + \sigma^{-2} X^\top \mathrm{diag}(\omega) X, \qquad
              m = \sigma^{-2} C X^\top \mathrm{diag}(\omega) y

    Args:
        x: Covariates, shape ``(N, d)``.
        y: Outcomes, shape ``(N,)``.
        weight: Weights omega of the rows, shape ``(N,)``; one each if left out.
        noise: Standard deviation of the outcomes about their line; the model's default, as in :func:`task`.

    Returns:
        Mean ``(d,)`` and covariance ``(d, d)``, float64.
    """
    x, y = torch.as_tensor(x, dtype=torch.float64), torch.as_tensor(y, dtype=torch.float64)
    weight = torch.ones(len(x), dtype=torch.float64) if weight is None else torch.as_tensor(weight, dtype=torch.float64)
    scaled = x.mT * (weight / noise**2)
    root = torch.linalg.cholesky(torch.eye(x.shape[-1], dtype=torch.float64) + scaled @ x)
    return torch.cholesky_solve((scaled @ y)[:, None], root)[:, 0], torch.cholesky_inverse(root)


def _simulate(rows: int, dim: int, seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, dim))
    x[:, 0] = 1
    w = rng.normal(size=dim) / np.sqrt(dim)
    return {"x": x, "y": x @ w + NOISE * rng.normal(size=rows)}
