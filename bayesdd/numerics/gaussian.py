"""Gaussians by mean and triangular factor: densities, draws, distances, divergences, marginals, matched moments."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributions import MultivariateNormal, kl_divergence

FEW = 0.05  # share of a mixture's draws that all modes get alike: a mass by Laplace may be too low
LEAST_DEGREES = 20  # of the Student-t proposal: with fewer its own tails make the importance weights uneven
EQUAL, TINY = 1e-15, 1e-300  # relative, and a variance: what rounding leaves between equal numbers, zeros among them


@dataclass(frozen=True, eq=False)
class Gaussian:
    """N(mean, factor factor') in unconstrained space.

    Attributes:
        mean: Shape ``(P,)``.
        factor: Lower triangular, ``(P, P)``.
        height: The log joint at the mean, nats, of a Laplace fit; NaN of another.
    """

    mean: Tensor
    factor: Tensor
    height: float = math.nan

    @property
    def log_mass(self) -> float:
        """Laplace's estimate of the log evidence under this mode, nats."""
        dim = len(self.mean)
        return self.height + 0.5 * dim * math.log(2 * math.pi) + float(self.factor.diagonal().abs().log().sum())

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Independent draws, shape ``(count, P)``."""
        noise = torch.randn(count, len(self.mean), generator=generator, dtype=torch.float64).to(self.mean.device)
        return self.mean + noise @ self.factor.T

    def draw_student(self, count: int, generator: torch.Generator) -> Tensor:
        """Draws from the Student-t of this mean and scale, ``(count, P)``.

        As a proposal it reaches the tails, where a log-ratio has its large values, more often than the normal does.
        Degrees of freedom grow with P: a normal's radius concentrates as P grows, and with 20 degrees in 100 dimensions
        most importance weights would be small.
        """
        noise = torch.randn(count, len(self.mean), generator=generator, dtype=torch.float64)
        return self.mean + self.student(noise, generator)

    def student(self, noise: Tensor, generator: torch.Generator) -> Tensor:
        """Standard normal noise ``(count, P)`` as deviations of that Student-t from its mean."""
        degrees = self._degrees
        square = torch.randn(len(noise), degrees, generator=generator, dtype=torch.float64).square().sum(1)
        return (noise * (degrees / square).sqrt()[:, None]).to(self.mean.device) @ self.factor.T

    def log_prob_student(self, points: Tensor) -> Tensor:
        """Log density of that Student-t at points ``(S, P)``, nats, ``(S,)``."""
        dim, degrees = len(self.mean), self._degrees
        norm = math.lgamma((degrees + dim) / 2) - math.lgamma(degrees / 2) - dim / 2 * math.log(degrees * math.pi)
        log_density: Tensor = -(degrees + dim) / 2 * torch.log1p(self.distance(points) / degrees)
        return log_density + norm - self.factor.diagonal().abs().log().sum()

    @property
    def _degrees(self) -> int:
        return max(LEAST_DEGREES, 2 * len(self.mean))

    def log_prob(self, draws: Tensor) -> Tensor:
        """Log density, nats, shape ``(S,)``."""
        norm = 0.5 * len(self.mean) * math.log(2 * math.pi) + self.factor.diagonal().abs().log().sum()
        log_density: Tensor = -0.5 * self.distance(draws) - norm
        return log_density

    def distance(self, points: Tensor, other: Tensor | None = None) -> Tensor:
        """Squared Mahalanobis distance of points ``(..., P)`` from the mean, or from another point: shape ``(...)``."""
        shift = points - (self.mean if other is None else other)
        square: Tensor = (self._white(shift.reshape(-1, shift.shape[-1])) ** 2).sum(1)
        return square.reshape(shift.shape[:-1])

    def whitened(self, points: Tensor) -> Tensor:
        """Points ``(S, P)`` in coordinates of zero mean and unit covariance."""
        return self._white(points - self.mean)

    def _white(self, shift: Tensor) -> Tensor:
        white: Tensor = torch.linalg.solve_triangular(self.factor, shift.T, upper=False).T
        return white


def mixture(parts: Sequence[Gaussian], count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draws from the Student-t's of several fits, in proportion to their masses; at least a few of each.

    Returns:
        Draws ``(count, P)`` and their log density under the whole mixture, nats, ``(count,)``.
    """
    counts = (shares(parts) * count).floor().long()
    counts[int(counts.argmax())] += count - int(counts.sum())
    draws = torch.cat([part.draw_student(int(n), generator) for part, n in zip(parts, counts, strict=True)])
    return draws, log_mixture(parts, draws)


def log_mixture(parts: Sequence[Gaussian], points: Tensor) -> Tensor:
    """Log density of the same mixture at points ``(S, P)``, nats, ``(S,)``."""
    logs = shares(parts).log().tolist()
    return torch.stack(
        [part.log_prob_student(points) + share for part, share in zip(parts, logs, strict=True)]
    ).logsumexp(0)


def shares(parts: Sequence[Gaussian]) -> Tensor:
    """Shares of the mixture, ``(K,)``: by mass, and a few of each."""
    mass = torch.softmax(torch.tensor([part.log_mass for part in parts], dtype=torch.float64), 0)
    return (1 - FEW) * mass + FEW / len(parts)


def kl(p: Gaussian, q: Gaussian) -> float:
    """KL(p, q), nats; both factors have a positive diagonal."""
    first, second = (MultivariateNormal(g.mean, scale_tril=g.factor, validate_args=False) for g in (p, q))
    return float(kl_divergence(first, second))


def marginal(gaussian: Gaussian, index: Tensor) -> Gaussian:
    """Marginal of a Gaussian in some coordinates; its height is the joint's."""
    covariance = gaussian.factor @ gaussian.factor.T
    factor = torch.linalg.cholesky(covariance[index[:, None], index])
    return Gaussian(gaussian.mean[index], factor, gaussian.height)


def moment_matched(draws: Tensor, weight: Tensor | None = None) -> Gaussian:
    """The Gaussian with the mean and covariance of draws ``(S, P)``, weighted by ``(S,)`` that sum to one.

    The covariance is shrunk to its diagonal by P / (P + S); draws that agree in a coordinate are given the variance of
    their rounding there.
    """
    count, dim = draws.shape
    share = draws.new_full((count,), 1 / count) if weight is None else weight
    unbiased = (1 - share.square().sum()).clamp_min(1 / count)  # 0 where one draw has all the weight, and no spread
    covariance = torch.cov(draws.T, aweights=share, correction=0).reshape(dim, dim) / unbiased
    shrink = dim / (dim + count)
    covariance = (1 - shrink) * covariance + shrink * covariance.diagonal().diag()
    mean = share @ draws
    spread = covariance.diagonal()
    covariance = covariance + (spread.maximum((EQUAL * mean) ** 2 + TINY) - spread).diag()
    return Gaussian(mean, torch.linalg.cholesky(covariance))
