r"""Normally observed rows as constraints: the posterior on a manifold whose curvature does not grow as noise shrinks.

Latents z, in which the prior is about N(0, I), and the noise of every row are one vector :math:`q = (z, \epsilon)`; the
outcomes hold it to where

.. math:: c_n(q) = \frac{\sqrt{\omega_n}\,(m_n(z) - y_n) + \sigma_n(z)\,\epsilon_n}{s_n} = 0 .

By the coarea formula its density there, with respect to area, is that of :math:`N(0, I)` times
:math:`|J J'|^{-1/2}`, :math:`J = \partial c / \partial q`; s is any fixed scale. A prior that is not normal and weights
of rows with noise that is inferred add what is missing. Exact: z has the posterior as its marginal.

Cost: a Jacobian of all rows and one factorisation, R^2 P for R rows and P latents: for few rows and many latents.

Source: Au, Graham & Thiery, "Manifold lifting: scaling Markov chain Monte Carlo to the vanishing noise regime", Journal
of the Royal Statistical Society B, 2023.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.func import grad, vmap

from bayesdd.density import Density
from bayesdd.engine import Engine
from bayesdd.passes import Part
from bayesdd.pyro_model import Columns, Feeder, Recorder, Site, base, is_deterministic, row_frame

ROOT, UNIT = "root of the row's weight", "unit of the row's constraint"  # beside the model's own columns
# Noise enters c without a bend: it may turn faster than latents do, and then forgets in a trajectory that is short for
# them. At 1 the values at the ends of a Poisson problem, nearly all noise, had 29 effective draws of 960, others 200.
NOISE_RATE = 4.0
PRIOR_DRAWS = 200  # for the location and scale of a prior that is not normal: any do, the remainder is in the potential


@dataclass(frozen=True, eq=False)
class Place:
    """Points of the manifold and what a sampler needs to know of it there.

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
        """Vectors ``(S, P + R)`` without what stands upright on the manifold."""
        dim = self.slope.shape[2]
        along = (self.slope @ p[:, :dim, None])[..., 0] + self.units * p[:, dim:]
        return p - self.normal(self.solve(along))


class Lifted:
    """The rows of a density as constraints on latents and noise.

    Args:
        density: Every row of it is one number with a normal distribution, mean and scale functions of the latents.
        points: Unconstrained points ``(S, P)`` of the kind that will be visited: there the scales s are looked at.

    Attributes:
        rows: Number R of rows.
        rate: Frequencies ``(P + R,)``: the potential is ``|rate q|^2 / 2`` and more. 1 for latents; noise is in such
            units that its own is NOISE_RATE.

    Raises:
        ValueError: Other distributions, several outcomes a row, a masked or scaled observation, a negative weight.
    """

    def __init__(self, density: Density, points: Tensor) -> None:
        self.density = density
        self.blocks = [_Block(part, density.device) for part in density.parts]
        self.rows = sum(block.rows for block in self.blocks)
        self.centre, self.sd, self._normal = _standardised(density)
        self.rate = torch.ones(density.dim + self.rows, dtype=torch.float64, device=density.device)
        self.rate[density.dim :] = NOISE_RATE
        self._plain = bool((self.sd == 1).all())
        stops = list(itertools.accumulate([block.rows for block in self.blocks], initial=0))
        self._where = [slice(*ends) for ends in itertools.pairwise(stops)]
        weights = [block.root**2 for block in self.blocks]
        self._excess = torch.cat(weights) - 1 if any(part.weight is not None for part in density.parts) else None
        for block in self.blocks:
            block.measure(points)

    def lift(self, points: Tensor) -> Tensor:
        """Unconstrained points ``(S, P)`` with the noise that their outcomes then had, ``(S, P + R)``."""
        noise = [block.noise(points) for block in self.blocks]
        return torch.cat([(points - self.centre) / self.sd, *noise], 1) / self.rate

    def points(self, q: Tensor) -> Tensor:
        """The unconstrained points ``(..., P)`` of lifted ones."""
        return self.centre + self.sd * q[..., : self.density.dim]

    def constraints(self, q: Tensor) -> Tensor:
        """C at ``(S, P + R)``: shape ``(S, R)``."""
        with torch.no_grad():
            return torch.cat([block.constraints(at) for block, at in self._split(q)], 1)

    def place(self, q: Tensor) -> Place:
        """Jacobian, factor and force at ``(S, P + R)``; NaN where a model is not finite."""
        dim = self.density.dim
        with torch.enable_grad():
            leaf = q.detach().requires_grad_(True)
            found = [block.slopes(at) for block, at in self._split(leaf)]
        slope = q.new_zeros(len(q), self.rows, dim)
        with torch.no_grad():
            for block, here, rows in zip(self.blocks, self._where, found, strict=True):
                slope[:, here, block.index] = self._scaled(rows[..., :-1], block)
            units = NOISE_RATE * torch.cat([rows[..., -1] for rows in found], 1)
            gram = slope @ slope.mT
            gram.diagonal(dim1=1, dim2=2).add_(units**2)
            lower, failed = torch.linalg.cholesky_ex(gram)
            lower = torch.where((failed > 0)[:, None, None], torch.nan, lower)
            extra = lower.diagonal(dim1=1, dim2=2).log().sum(1)
            inverse = torch.cholesky_inverse(lower)
            turned = inverse @ slope
            more = inverse.diagonal(dim1=1, dim2=2) * units
            if self._excess is not None:  # N(y; m, s)^w has s^-w before it, N(y; m, s / sqrt(w)) has 1 / s
                extra = extra + (self._excess * units.log()).sum(1)
                more = more + self._excess / units
            upstream = [
                torch.cat([self._scaled(turned[:, here, block.index], block), NOISE_RATE * more[:, here, None]], 2)
                for block, here in zip(self.blocks, self._where, strict=True)
            ]
        bent = [(rows, up) for rows, up in zip(found, upstream, strict=True) if rows.requires_grad]
        force = torch.zeros_like(q)  # of linear rows with known noise
        if bent:
            (force,) = torch.autograd.grad([rows for rows, _ in bent], leaf, [up for _, up in bent])
        if not self._normal:
            value, more = self._rest(q[:, :dim])
            extra, force = extra + value, force + torch.cat([more, torch.zeros_like(q[:, dim:])], 1)
        return Place(q, slope, units, lower, extra, force)

    def _split(self, q: Tensor) -> list[tuple[_Block, Tensor]]:
        """Each block with its own latents, unconstrained, and its own noise behind them."""
        theta, noise = self.points(q), NOISE_RATE * q[:, self.density.dim :]
        return [
            (block, torch.cat([theta[:, block.index], noise[:, here]], 1))
            for block, here in zip(self.blocks, self._where, strict=True)
        ]

    def _scaled(self, slope: Tensor, block: _Block) -> Tensor:
        return slope if self._plain else slope * self.sd[block.index]

    def _rest(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """What the prior's potential has beside ``|z|^2 / 2``, and its gradient."""
        with torch.enable_grad():
            leaf = z.detach().requires_grad_(True)
            value = -self.density.log_prior(self.points(leaf)) - 0.5 * (leaf**2).sum(1)
            (slope,) = torch.autograd.grad(value.sum(), leaf)
        return value.detach(), slope


class _Block:
    """The rows of one task; those of weight zero are left out."""

    def __init__(self, part: Part, device: torch.device) -> None:
        task, weight = part.task, part.weight
        (columns,) = part.rows.blocks(0, part.rows.size, part.rows.size, pin=False)
        if weight is None:
            weight = torch.ones(part.rows.size, dtype=torch.float64)
        if not bool((weight >= 0).all()):
            raise ValueError(f"constrained() needs weights that are not negative, got {float(weight.min()):.3g}.")
        self.columns = {name: column[weight.cpu() > 0].to(device) for name, column in columns.items()}
        self.root = weight[weight > 0].sqrt().to(device)
        self.rows, self.dim, self.index = len(self.root), task.dim, _as_slice(part.index)
        self._scale = torch.ones_like(self.root)
        self._seen = Engine(_seen(part), task.backend)
        self._slopes = Engine(_slopes(part), task.backend)

    def measure(self, points: Tensor) -> None:
        """Sets the rows' fixed scales to their noise at points."""
        self._scale = self._seen(points[:, self.index], self.columns)[:, 1].log().mean(0).exp()

    def noise(self, points: Tensor) -> Tensor:
        """The noise of the outcomes, in units of the weighted rows' standard deviations, ``(S, rows)``."""
        seen = self._seen(points[:, self.index], self.columns)
        return -seen[:, 0] * self.root / seen[:, 1]

    def constraints(self, at: Tensor) -> Tensor:
        seen = self._seen(at[:, : self.dim], self.columns)
        return (seen[:, 0] * self.root + seen[:, 1] * at[:, self.dim :]) / self._scale

    def slopes(self, at: Tensor) -> Tensor:
        """Derivatives in the latents and in the row's noise, ``(S, rows, P of the task + 1)``; differentiable."""
        return self._slopes(at, {**self.columns, ROOT: self.root, UNIT: self._scale})


def _as_slice(index: Tensor) -> Any:
    """Where a task's latents stand: a slice if they stand together, which copies nothing."""
    start, stop = int(index[0]), int(index[-1]) + 1
    return slice(start, stop) if torch.equal(index.cpu(), torch.arange(start, stop)) else index


def _observed(part: Part, feeder: Feeder, rows: Columns) -> tuple[Tensor, Tensor]:
    """Mean minus outcome and standard deviation of every row, ``(rows,)`` each."""
    task = part.task
    with Recorder() as recorder, feeder:
        task.model(**rows)
    seen = [m for m in recorder.messages if m["is_observed"] and not is_deterministic(m)]
    seen = [m for m in seen if row_frame(m, task.plate) is not None]
    count = len(next(iter(rows.values())))
    plain = all(isinstance(m["fn"], dist.Normal) and m["mask"] is None and _is_one(m["scale"]) for m in seen)
    if len(seen) != 1 or not plain or seen[0]["fn"].loc.numel() not in (1, count):
        kinds = [(m["name"], type(base(m["fn"])).__name__) for m in seen]
        raise ValueError(
            f"constrained() needs one observed site y ~ Normal(mean, noise) with one number a row, neither masked nor "
            f"scaled, but {task.name} observes {kinds}: use bayesdd.inference.hmc."
        )
    fn, outcome = seen[0]["fn"], torch.as_tensor(seen[0]["value"])
    mean, scale = (value.reshape(-1).expand(count) for value in (fn.loc - outcome, fn.scale))
    return mean, scale


def _is_one(scale: Any) -> bool:
    return not isinstance(scale, Tensor) and scale == 1


class _BySite(Feeder):
    """Feeds every site from a tensor of its own: a slope in a slice of one vector is padded to all of it."""

    def __init__(self, part: Part, sites: Columns) -> None:
        super().__init__(part.task.structure, next(iter(sites.values())), part.task.plate)
        self._sites = sites

    def _free(self, site: Site) -> Tensor:
        return self._sites[site.name]


def _seen(part: Part) -> Callable[[Tensor, Columns], Tensor]:
    def single(flat: Tensor, rows: Columns) -> Tensor:
        return torch.stack(_observed(part, Feeder(part.task.structure, flat, part.task.plate), rows))

    return single


def _slopes(part: Part) -> Callable[[Tensor, Columns], Tensor]:
    """Row by row: each costs its own backward pass only."""
    sites = part.task.structure.sites

    def one(free: Columns, noise: Tensor, root: Tensor, unit: Tensor, row: Columns) -> tuple[Tensor, Tensor]:
        miss, scale = _observed(part, _BySite(part, free), {name: value[None] for name, value in row.items()})
        return (root * miss + scale * noise).squeeze() / unit, scale.squeeze() / unit

    def single(at: Tensor, rows: Columns) -> Tensor:
        free = {site.name: at[site.start : site.stop] for site in sites}
        columns = {name: column for name, column in rows.items() if name not in (ROOT, UNIT)}
        by_row = vmap(grad(one, has_aux=True), in_dims=(None, 0, 0, 0, 0))
        slopes, scale = by_row(free, at[part.task.dim :], rows[ROOT], rows[UNIT], columns)
        return torch.cat([*(slopes[site.name] for site in sites), scale[:, None]], 1)

    return single


def _standardised(density: Density) -> tuple[Tensor, Tensor, bool]:
    """Centre and scale of the prior, ``(P,)`` each, and whether it is normal and independent: no more to it."""
    draws = torch.zeros(3, density.dim, dtype=torch.float64)
    for part in reversed(density.parts):
        draws[:, part.index.cpu()] = part.task.prior_draws(3, 0)
    at = draws.to(density.device).requires_grad_(True)
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
    many = torch.zeros(PRIOR_DRAWS, density.dim, dtype=torch.float64)
    for part in reversed(density.parts):
        many[:, part.index.cpu()] = part.task.prior_draws(PRIOR_DRAWS, 0)
    return many.mean(0).to(density.device), many.std(0).clamp_min(1e-6).to(density.device), False
