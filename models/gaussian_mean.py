r"""Mean of a Gaussian with known unit covariance: the task whose every answer is known.

.. math:: \theta \sim N(0, I_d), \qquad x_n \mid \theta \sim N(\theta, I_d).

The rows are measured in units of their own noise, so a prior of unit scale says that the mean is of the size of one
measurement's error. With weights ``w`` the posterior is Gaussian with precision ``(1 + sum w) I`` and mean
``sum_n w_n x_n / (1 + sum w)``: one synthetic row reproduces any number of real ones.
"""

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from bayesdd.task.task import Task


def model(x: Tensor | None = None, *, rows: int = 1, dim: int = 10) -> Tensor:
    """One site, ``theta``: (d,).

    Args:
        x: Measurements, shape ``(N, d)``, in units of their noise; simulated if left out.
        rows: Number of rows to simulate where ``x`` is left out.
        dim: Their dimension d.

    Returns:
        The measurements, shape ``(N, d)``.
    """
    rows, dim = (rows, dim) if x is None else x.shape
    theta = pyro.sample("theta", dist.Normal(0.0, 1.0).expand([dim]).to_event(1))
    with pyro.plate("data", rows):
        return pyro.sample("x", dist.Normal(theta, 1.0).to_event(1), obs=x)


def task(rows: int = 10_000, dim: int = 10, seed: int = 0) -> Task:
    """Simulated measurements around a mean drawn from the prior."""
    rng = np.random.default_rng(seed)
    return Task(model, {"x": rng.normal(size=dim) + rng.normal(size=(rows, dim))})


def exact(x: ArrayLike | Tensor, weight: ArrayLike | Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Posterior mean and covariance for weighted rows.

    Args:
        x: Measurements, shape ``(N, d)``.
        weight: Their weights, shape ``(N,)``; one each if left out.

    Returns:
        Mean ``(d,)`` and covariance ``(d, d)``, float64.
    """
    x = torch.as_tensor(x, dtype=torch.float64)
    weight = torch.ones(len(x), dtype=torch.float64) if weight is None else torch.as_tensor(weight, dtype=torch.float64)
    precision = 1 + weight.sum()
    return weight @ x / precision, torch.eye(x.shape[-1], dtype=torch.float64) / precision


def kl(p: tuple[Tensor, Tensor], q: tuple[Tensor, Tensor]) -> Tensor:
    r"""KL(p, q) between two Gaussians, as any model's ``exact`` returns them, in nats.

    .. math:: \tfrac12 \{ \mathrm{tr}(C_q^{-1} C_p) - P - \log\det(C_q^{-1} C_p)
              + (m_q - m_p)^\top C_q^{-1} (m_q - m_p) \}

    The forward KL of a distilled set is ``kl(exact(**full), exact(**distilled))``, the reverse KL the other way round.
    Eigenvalues of ``C_q^{-1} C_p`` within rounding of one cost no digits: each term ``lam - 1 - log(lam)`` is
    evaluated as ``e - log1p(e)`` of ``e = lam - 1``.

    Args:
        p: Mean ``(P,)`` and covariance ``(P, P)``.
        q: Mean ``(P,)`` and covariance ``(P, P)``.

    Returns:
        Zero-dimensional tensor, nats.
    """
    (mean_p, cov_p), (mean_q, cov_q) = p, q
    root = torch.linalg.cholesky(cov_q)
    shift = torch.linalg.solve_triangular(root, (mean_q - mean_p)[:, None], upper=False)
    half = torch.linalg.solve_triangular(root, cov_p - cov_q, upper=False)
    excess = torch.linalg.eigvalsh(torch.linalg.solve_triangular(root, half.mT, upper=False))
    return ((excess - torch.log1p(excess)).sum() + shift.square().sum()) / 2
