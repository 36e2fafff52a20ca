r"""Normally observed rows as constraints: a posterior on a manifold whose curvature does not grow as noise shrinks.

Latents z, with a prior of about N(0, I), and the noise of every row form one vector :math:`q = (z, \epsilon)`; given
the outcomes it lies where

.. math:: c_n(q) = \frac{\sqrt{\omega_n}\,(m_n(z) - y_n) + \sigma_n(z)\,\epsilon_n}{s_n} = 0 .

By the coarea formula its density there, with respect to area, is that of :math:`N(0, I)` times
:math:`|J J'|^{-1/2}`, :math:`J = \partial c / \partial q`; s is any fixed scale. A prior that is not normal adds its
ratio to N(0, I), weighted rows whose noise is inferred a power of it. Exact: the marginal of z is the posterior.

Cost: a Jacobian of all rows and one factorisation, R^2 P for R rows and P latents: for few rows and many latents.

Source: Au, Graham & Thiery, "Manifold lifting: scaling Markov chain Monte Carlo to the vanishing noise regime", Journal
of the Royal Statistical Society B, 2023.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor

from bayesdd.density.density import Density
from bayesdd.inference.mode import prior_draws
from bayesdd.inference.normal_rows import NormalRows
from bayesdd.numerics.refusal import Refusal

NOISE_RATE = 4.0  # c is linear in the noise, which may therefore turn faster than latents do, and mix in less time
MOST_ROWS = 2_000
PRIOR_DRAWS = 200  # for location and scale of a prior that is not normal: the potential corrects whatever they are


@dataclass(frozen=True, eq=False)
class Place:
    """Points of the manifold, and what a sampler needs to know there.

    Attributes:
        q: Latents and noise, ``(S, P + R)``.
        slope: Derivatives of the constraints in the latents, ``(S, R, P)``.
        units: Their derivatives in the rows' own noise, ``(S, R)``.
        lower: Cholesky factor of J J', ``(S, R, R)``.
        extra: The potential beside ``|rate q|^2 / 2``, nats, ``(S,)``.
        force: Its gradient, ``(S, P + R)``.
    """

    q: Tensor
    slope: Tensor
    units: Tensor
    lower: Tensor
    extra: Tensor
    force: Tensor

    def normal(self, multiplier: Tensor) -> Tensor:
        """J' times multipliers ``(S, R)``: shape ``(S, P + R)``."""
        return torch.cat([(multiplier[:, None] @ self.slope)[:, 0], self.units * multiplier], 1)

    def solve(self, right: Tensor) -> Tensor:
        """(J J')^-1 times ``(S, R)``."""
        return torch.cholesky_solve(right[..., None], self.lower)[..., 0]

    def tangent(self, p: Tensor) -> Tensor:
        """Vectors ``(S, P + R)`` without their part that is normal to the manifold."""
        dim = self.slope.shape[2]
        along = (self.slope @ p[:, :dim, None])[..., 0] + self.units * p[:, dim:]
        return p - self.normal(self.solve(along))


class Lifted:
    """The rows of a density as constraints on latents and noise.

    Args:
        density: Every row of it is one number with a normal distribution, mean and scale functions of the latents.
        points: Unconstrained points ``(S, P)`` like those that will be visited: the scales s are the noise there.
        compiled: Whether to compile the rows' functions (:class:`bayesdd.task.engine.Engine`).

    Attributes:
        rows: Number R of rows.
        rate: Frequencies ``(P + R,)``: the potential is ``|rate q|^2 / 2`` plus a rest. One for latents, NOISE_RATE for
            noise.

    Raises:
        ValueError: Other distributions, several outcomes a row, a masked or scaled observation, a negative weight, more
            than 2,000 rows.
    """

    def __init__(self, density: Density, points: Tensor, *, compiled: bool = False) -> None:
        self.density = density
        self.blocks = [NormalRows(part, density.device, compiled=compiled) for part in density.parts]
        self.rows = sum(block.rows for block in self.blocks)
        if self.rows > MOST_ROWS:
            raise Refusal(
                f"constrained() factorises a matrix of all rows at every step, and {self.rows:,} are too many (most: "
                f"{MOST_ROWS:,}): use bayesdd.inference.hmc, or distil the rows first."
            )
        self.centre, self.sd, self._normal = _standardised(density)
        self.rate = torch.ones(density.dim + self.rows, dtype=torch.float64, device=density.device)
        self.rate[density.dim :] = NOISE_RATE
        stops = list(itertools.accumulate([block.rows for block in self.blocks], initial=0))
        self._where = [slice(*ends) for ends in itertools.pairwise(stops)]
        weights = [block.root**2 for block in self.blocks]
        self._excess = torch.cat(weights) - 1 if any(part.weighted for part in density.parts) else None
        for block in self.blocks:
            block.measure(points)

    def lift(self, points: Tensor) -> Tensor:
        """Unconstrained points ``(S, P)`` with the noise that explains the outcomes there, ``(S, P + R)``."""
        noise = [block.noise(points) for block in self.blocks]
        return torch.cat([(points - self.centre) / self.sd, *noise], 1) / self.rate

    def points(self, q: Tensor) -> Tensor:
        """The unconstrained points ``(..., P)`` of lifted ones."""
        return self.centre + self.sd * q[..., : self.density.dim]

    def constraints(self, q: Tensor) -> Tensor:
        """The constraints at ``(S, P + R)``: shape ``(S, R)``."""
        with torch.no_grad():
            return torch.cat([block.constraints(at) for block, at in self._split(q)], 1)

    def place(self, q: Tensor) -> Place:
        """Jacobian, factor and force at ``(S, P + R)``; NaN where a model is not finite."""
        dim, split = self.density.dim, self._split(q)
        slope, units = q.new_zeros(len(q), self.rows, dim), q.new_empty(len(q), self.rows)
        for (block, at), here in zip(split, self._where, strict=True):
            rows = block.slopes(at)
            slope[:, here, block.index] = rows[..., :-1] * self.sd[block.index]
            units[:, here] = NOISE_RATE * rows[..., -1]
        gram = slope @ slope.mT
        gram.diagonal(dim1=1, dim2=2).add_(units**2)
        lower, failed = torch.linalg.cholesky_ex(gram)
        lower = torch.where((failed > 0)[:, None, None], torch.nan, lower)
        extra = lower.diagonal(dim1=1, dim2=2).log().sum(1)
        inverse = torch.cholesky_inverse(lower)
        turned, more = inverse @ slope, inverse.diagonal(dim1=1, dim2=2) * units
        if self._excess is not None:  # N(y; m, s)^w has s^-w before it, N(y; m, s / sqrt(w)) has 1 / s
            extra = extra + (self._excess * units.log()).sum(1)
            more = more + self._excess / units
        force = torch.zeros_like(q)
        for (block, at), here in zip(split, self._where, strict=True):
            along = turned[:, here, block.index] * self.sd[block.index]
            bent = block.turning(at, along, NOISE_RATE * more[:, here])
            force[:, block.index] += bent[:, : block.dim] * self.sd[block.index]
            force[:, dim:][:, here] += NOISE_RATE * bent[:, block.dim :]
        if not self._normal:
            value, more = self._rest(q[:, :dim])
            extra, force = extra + value, force + torch.cat([more, torch.zeros_like(q[:, dim:])], 1)
        return Place(q, slope, units, lower, extra, force)

    def _split(self, q: Tensor) -> list[tuple[NormalRows, Tensor]]:
        """Each block with its own latents, unconstrained, followed by its own noise."""
        theta, noise = self.points(q), NOISE_RATE * q[:, self.density.dim :]
        return [
            (block, torch.cat([theta[:, block.index], noise[:, here]], 1))
            for block, here in zip(self.blocks, self._where, strict=True)
        ]

    def _rest(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """The prior's potential less ``|z|^2 / 2``, and its gradient."""
        with torch.enable_grad():
            leaf = z.detach().requires_grad_(True)
            value = -self.density.log_prior(self.points(leaf)) - 0.5 * (leaf**2).sum(1)
            (slope,) = torch.autograd.grad(value.sum(), leaf)
        return value.detach(), slope


def _standardised(density: Density) -> tuple[Tensor, Tensor, bool]:
    """Centre and scale of the prior, ``(P,)`` each, and whether it is exactly normal and independent."""
    at = prior_draws(density, 3, 0).requires_grad_(True)
    (slope,) = torch.autograd.grad(density.log_prior(at).sum(), at, create_graph=True)
    if slope.requires_grad:
        (precision,) = torch.autograd.grad(-slope.sum(), at)
        sd = precision.clamp_min(1e-300).rsqrt()
        centre = at.detach() + slope.detach() * sd**2
        with torch.no_grad():
            rest = density.log_prior(at) + 0.5 * (((at - centre[0]) / sd[0]) ** 2).sum(1)
        close = bool((precision > 0).all()) and torch.allclose(rest, rest[:1].expand(3), rtol=1e-9, atol=1e-9)
        if close:
            return centre[0], sd[0], True
    many = prior_draws(density, PRIOR_DRAWS, 0)
    return many.mean(0), many.std(0).clamp_min(1e-6), False
