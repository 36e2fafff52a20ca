r"""Modes by Levenberg-Marquardt, and Laplace approximations there with the Gauss-Newton matrix: made for networks.

.. math:: A = J'J + \Pi, \qquad \theta \leftarrow \theta + (A + \lambda\,\mathrm{diag} A)^{-1} \nabla \log p(\theta, D)

J as in :mod:`bayesdd.information`, :math:`\Pi` the prior's precision. A is positive definite where the Hessian of a
network is not, and steps by it see the many directions that rows leave to the prior. Several starts advance together.
With fewer roots R than parameters P everything is solved in R dimensions (Woodbury).

Exact for linear models with normal noise of known size. Of networks the draws belong to the *linearised* function
(:func:`bayesdd.functions.linearised`): pushed through the network itself they spread far too widely.

Cost of a step: a Jacobian of all rows and one factorisation, R P min(R, P).

Sources: Marquardt, "An algorithm for least-squares estimation of nonlinear parameters", SIAM 1963; Immer, Korzepa &
Bauer, "Improving predictions of Bayesian neural nets via local linearization", AISTATS 2021.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bayesdd.density import Density
from bayesdd.inference.draws import Draws
from bayesdd.inference.laplace import scattered
from bayesdd.information import Information

STEPS = 300
CONVERGED = 1e-8  # nats that the quadratic model promises at the next step, relative to 1 + |value| / 1e6
LONGEST = 3.0  # prior standard deviations of a coordinate a step: far from the data the information of a noise scale,
# 2 for every row, is thousands of times less than its curvature
FIRST_DAMPING, LEAST_DAMPING, MOST_DAMPING = 1e-2, 1e-10, 1e10


@dataclass(frozen=True, eq=False)
class Modes:
    """Where several searches ended, the best first.

    Attributes:
        points: Shape ``(S, P)``.
        log_joint: Log joint density there, nats, ``(S,)``.
        left: What the quadratic model promises at one more step, nats, ``(S,)``: small at a mode.
    """

    points: Tensor
    log_joint: Tensor
    left: Tensor


def gauss_newton(density: Density, *, draws: int, chains: int, seed: int, steps: int = STEPS) -> Draws:
    """Draws of Gauss-Newton Laplace approximations, each chain around the mode that a search of its own found.

    Args:
        density: The posterior.
        draws: Draws a chain.
        chains: Number of searches.
        seed: Seed of the starting points and of the draws.
        steps: Most steps of a search.

    Returns:
        Draws without importance weights. Several modes are not weighed against each other: as an ensemble.

    Raises:
        ValueError: Rows are observed by a distribution whose information is not known.
    """
    found = climb(density, scattered(density, chains, seed), steps=steps)
    return around(density, found.points, draws=draws, seed=seed)


def around(density: Density, modes: Tensor, *, draws: int, seed: int) -> Draws:
    """Draws ``(chains, draws, P)`` of the Gauss-Newton Laplace approximations at modes ``(chains, P)``."""
    generator = torch.Generator().manual_seed(seed)
    curvature = _Curvature(density, Information(density), modes, torch.ones_like(modes[0]))
    return Draws(modes[:, None] + curvature.draw(draws, generator))


def randomised(density: Density, count: int, seed: int, *, steps: int = STEPS) -> Modes:
    """Sample, then optimise: from each of several prior draws to where the rows pull it, and no further.

    Each search sees the prior centred at its own draw, so that directions which the rows leave alone keep the spread of
    the prior. Modes have none: a network's mode lies far inside of where its posterior is, and HMC is long on the way
    out. With linear models the ends are posterior draws, but for the noise of the outcomes.

    Args:
        density: The posterior.
        count: Number of searches.
        seed: Seed of the prior draws.
        steps: Most steps of a search.

    Returns:
        The ends, by their log joint density.

    Source: Oliver, He & Reynolds, "Conditioning permeability fields to pressure data", ECMOR 1996; Matthews, Hron,
    Turner & Ghahramani, "Sample-then-optimize posterior sampling for Bayesian linear models", 2017.
    """
    points = torch.zeros(count, density.dim, dtype=torch.float64)
    for part in reversed(density.parts):
        points[:, part.index.cpu()] = part.task.prior_draws(count, seed)
    points = points.to(density.device)
    at = points.clone().requires_grad_(True)
    (slope,) = torch.autograd.grad(density.log_prior(at).sum(), at)
    return climb(density, points, steps=steps, tilt=-slope)


def climb(
    density: Density,
    starts: Tensor,
    *,
    steps: int = STEPS,
    hold: Sequence[str] = (),
    tilt: Tensor | None = None,
) -> Modes:
    """Levenberg-Marquardt from several starts ``(S, P)`` at once; ends where it stops, converged or not.

    Args:
        density: The posterior.
        starts: Unconstrained starting points, ``(S, P)``.
        steps: Most steps.
        hold: Sites that stay where they start: scales of several terms, which would otherwise give up the terms that a
            random network happens to fit worst.
        tilt: A linear term of each start's own, ``tilt @ point`` nats, ``(S, P)``: climbed too, but not reported.

    Raises:
        ValueError: ``hold`` names a site that the density does not have.
    """
    moving = _moving(density, hold)
    information = Information(density)

    def tilted(points: Tensor) -> tuple[Tensor, Tensor]:
        value, gradient = density.log_joint_gradient(points)
        return (value, gradient) if tilt is None else (value + (tilt * points).sum(1), gradient + tilt)

    point, (value, gradient) = starts, tilted(starts)
    damping = torch.full_like(value, FIRST_DAMPING)
    left = torch.full_like(value, torch.inf)
    curvature, moved = None, True
    for _ in range(steps):
        if curvature is None or moved:
            curvature = _Curvature(density, information, point, moving)
        step = curvature.solve(gradient * moving, damping)
        step = torch.minimum(torch.maximum(step, -curvature.longest), curvature.longest)
        promised = (gradient * step).sum(1)  # at a mode twice what is left to gain
        gain = promised - 0.5 * curvature.square(step)
        trial = point + step
        trial_value, trial_gradient = tilted(trial)
        good = torch.isfinite(trial_value) & torch.isfinite(trial_gradient).all(1)
        better = good & (trial_value > value)
        share = torch.where(good, (trial_value - value) / gain.clamp_min(1e-300), -1.0)
        point = torch.where(better[:, None], trial, point)
        gradient = torch.where(better[:, None], trial_gradient, gradient)
        value = torch.where(better, trial_value, value)
        damping = torch.where(share > 0.7, damping / 4, torch.where(share > 0.2, damping, damping * 5))
        left = torch.minimum(0.5 * promised, left) if not bool(better.any()) else 0.5 * promised
        small = promised < CONVERGED * (1 + value.abs() / 1e6)
        if bool((small | (damping > MOST_DAMPING)).all()):
            break
        damping = damping.clamp(LEAST_DAMPING, MOST_DAMPING * 10)
        moved = bool(better.any())
    value = value if tilt is None else value - (tilt * point).sum(1)
    order = value.argsort(descending=True)
    return Modes(point[order], value[order], left[order])


def _moving(density: Density, names: Sequence[str]) -> Tensor:
    """One where a coordinate may move, zero where it is held, ``(P,)``."""
    free = torch.ones(density.dim, dtype=torch.float64, device=density.device)
    for name in names:
        if name not in density.starts:
            raise ValueError(f"climb(hold=...) names site {name!r}, but the sites are {sorted(density.starts)}.")
        start, _, width = density.starts[name]
        free[start : start + width] = 0.0
    return free


class _Curvature:
    """A = J'J + Pi at S points: solves, squares and draws; in the R roots' dimensions where they are fewer than P.

    Coordinates that do not move (``moving`` 0) are cut off from the others.
    """

    def __init__(self, density: Density, information: Information, points: Tensor, moving: Tensor) -> None:
        self.prior = _prior_precision(density, points)
        if self.prior.dim() == 3:
            self.prior = self.prior * moving[:, None] * moving + torch.diag(1 - moving)
        spread = self.prior.diagonal(dim1=1, dim2=2) if self.prior.dim() == 3 else self.prior
        self.longest = LONGEST / spread.sqrt()
        dim, roots = points.shape[1], 0
        kept: list[Tensor] = []
        self.matrix: Tensor | None = None
        for block in information.blocks(points):
            block = block * moving
            roots += block.shape[1]
            if self.matrix is None and (roots > dim or self.prior.dim() == 3):
                self.matrix = torch.zeros(len(points), dim, dim, dtype=points.dtype, device=points.device)
                for before in kept:
                    self.matrix += before.mT @ before
                kept = []
            if self.matrix is None:
                kept.append(block)
            else:
                self.matrix += block.mT @ block
        if self.matrix is not None:
            self.matrix += self.prior if self.prior.dim() == 3 else torch.diag_embed(self.prior)
            self.diagonal = self.matrix.diagonal(dim1=1, dim2=2)
        else:
            self.root = torch.cat(kept, 1)
            self.diagonal = (self.root**2).sum(1) + self.prior

    def solve(self, right: Tensor, damping: Tensor) -> Tensor:
        """(A + damping diag A)^-1 right, ``(S, P)``."""
        extra = damping[:, None] * self.diagonal
        if self.matrix is not None:
            lower = torch.linalg.cholesky(self.matrix + torch.diag_embed(extra))
            return torch.cholesky_solve(right[..., None], lower)[..., 0]
        base = self.prior + extra
        first = right / base
        inner = torch.linalg.cholesky(_one_more(self.root @ (self.root / base[:, None]).mT))
        back = torch.cholesky_solve(self.root @ first[..., None], inner)
        return first - (self.root.mT @ back)[..., 0] / base

    def square(self, vector: Tensor) -> Tensor:
        """The quadratic form v' A v, ``(S,)``."""
        if self.matrix is not None:
            return (vector * (self.matrix @ vector[..., None])[..., 0]).sum(1)
        return ((self.root @ vector[..., None]) ** 2).sum((1, 2)) + (self.prior * vector**2).sum(1)

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Draws of N(0, A^-1), ``(S, count, P)``; with few roots by Matheron's rule: the prior's, corrected."""
        points, dim = self.diagonal.shape

        def noise(width: int) -> Tensor:
            made = torch.randn(points, count, width, generator=generator, dtype=self.diagonal.dtype)
            return made.to(self.diagonal.device)

        if self.matrix is not None:
            lower = torch.linalg.cholesky(self.matrix)
            drawn: Tensor = torch.linalg.solve_triangular(lower.mT, noise(dim).mT, upper=True).mT
            return drawn
        wide = noise(dim) / self.prior.sqrt()[:, None]
        scaled = self.root / self.prior[:, None]
        inner = torch.linalg.cholesky(_one_more(self.root @ scaled.mT))
        miss = noise(self.root.shape[1]) - wide @ self.root.mT
        found: Tensor = wide + torch.cholesky_solve(miss.mT, inner).mT @ scaled
        return found


def _one_more(matrix: Tensor) -> Tensor:
    found: Tensor = matrix + torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)
    return found


def _prior_precision(density: Density, points: Tensor) -> Tensor:
    """Minus the log prior's Hessian: its diagonal ``(S, P)`` where that is all, else ``(S, P, P)`` made definite.

    Two Hessian products tell: with a vector of ones and with one of random signs.
    """
    at = points.detach().clone().requires_grad_(True)
    (slope,) = torch.autograd.grad(density.log_prior(at).sum(), at, create_graph=True)
    signs = 2.0 * torch.randint(2, (points.shape[1],), generator=torch.Generator().manual_seed(0)).to(points) - 1
    if not slope.requires_grad:
        return torch.full_like(points, 1e-12)
    rows, turned = (
        torch.autograd.grad(slope, at, v.expand_as(slope), retain_graph=True, allow_unused=True)[0]
        for v in (torch.ones_like(signs), signs)
    )
    if torch.allclose(rows * signs, turned, rtol=1e-9, atol=1e-9):
        return (-rows).clamp_min(1e-12)
    precision = -density.prior_derivatives(points)[2]
    values, vectors = torch.linalg.eigh((precision + precision.mT) / 2)
    definite: Tensor = (vectors * values.abs().clamp_min(1e-12)[:, None]) @ vectors.mT
    return definite
