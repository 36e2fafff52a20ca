r"""Sequential Monte Carlo from a wide start to a posterior: draws that no mode search has chosen.

.. math:: f_t \propto q^{1 - \beta_t} f^{\beta_t}, \qquad 0 = \beta_0 < \dots < \beta_T = 1

q is a normal as wide as the prior, f the posterior. Particles are reweighted from one stage to the next, resampled, and
moved by Hamiltonian transitions; the temperature rises as fast as half of the particles stay effective. Regions get
particles in proportion to their mass, whether they are modes or not. The particles of all stages together, weighted
against the mixture of all stages, also see regions with less mass than one particle: these held more at earlier stages.
By way of the wider posterior of a few of the rows, the path has two legs: from q to that, and from there to f.

Cost: about ``stages * moves * 8`` gradients of all particles; stages of a leg grow as the root of P times the log of
how much narrower its end is.

Source: Del Moral, Doucet & Jasra, "Sequential Monte Carlo samplers", JRSS B 2006; for the weights of all stages
Veach & Guibas, "Optimally combining sampling techniques for Monte Carlo rendering", SIGGRAPH 1995.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from bayesdd.density.density import Density
from bayesdd.inference.leapfrog import Chains
from bayesdd.inference.mode import prior_draws
from bayesdd.numerics.gaussian import Gaussian, moment_matched

EFFECTIVE = 0.5  # share of particles that a rise of the temperature leaves effective
PRIOR_DRAWS = 64  # that place and scale the start
PRIOR_SEED = 0  # the same ones for all: they say how wide the prior is, and no particle is one of them
WIDER = 1.5  # the start's sds in units of the prior's
MOVES, LAST_MOVES = 2, 4  # transitions a stage, and after the last one
MAX_STEPS = 12  # leapfrog steps of a transition: particles need to move locally only
STAGES = 150  # most stages; a posterior that needs more is left to other methods
MOST_LATENTS = 64  # beyond which tempering takes too many stages
LEAST_RISE = 1e-9  # of the temperature
HALVINGS = 20  # of the log of a rise: to a hundred-thousandth of it


@dataclass(frozen=True, eq=False)
class Tempered:
    """Draws of a posterior by sequential Monte Carlo.

    Attributes:
        points: Particles at the end, of equal weight, ``(S, P)``.
        every: Particles of all stages, ``(T S, P)``.
        log_weight: Their log weights as draws of the posterior, normalised, ``(T S,)``.
        log_joint: The posterior's log joint at them, nats, ``(T S,)``.
        log_evidence: Log of the posterior's normalising constant, nats.
    """

    points: Tensor
    every: Tensor
    log_weight: Tensor
    log_joint: Tensor
    log_evidence: float


LogDensity = Callable[[Tensor], tuple[Tensor, Tensor]]  # points (S, P) -> values (S,), gradients (S, P)


class _Between:
    """The density between a lower and an upper one, up to a constant; serves leapfrog transitions."""

    def __init__(self, lower: LogDensity, upper: Density) -> None:
        self.lower, self.upper, self.temperature = lower, upper, 0.0
        self.dim, self.device = upper.dim, upper.device

    def log_joint_gradient(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Value ``(S,)`` and gradient ``(S, P)``; minus infinity and 0 where one of the two's are not finite."""
        (low, pull), (high, slope) = self.lower(points), self.upper.log_joint_gradient(points)
        ratio = high - low
        good = torch.isfinite(ratio) & torch.isfinite(slope).all(1)
        warm = low + self.temperature * ratio
        tilted = pull + self.temperature * (slope - pull)
        return torch.where(good, warm, -torch.inf), torch.where(good[:, None], tilted, 0.0)

    def log_ratio(self, points: Tensor, log_density: Tensor | None = None) -> Tensor:
        """Log of upper over lower at points, given this stage's log density there; minus infinity if not finite."""
        low = self.lower(points)[0]
        ratio = self.upper.log_joint(points) - low if log_density is None else (log_density - low) / self.temperature
        return torch.where(torch.isfinite(ratio), ratio, -torch.inf)


class _Stage(NamedTuple):
    """Particles of a stage, the shares of all levels in its log density, and the log of its normalising constant."""

    points: Tensor
    shares: list[float]
    log_evidence: float


def tempered(density: Density, *, particles: int, seed: int, few: Density | None = None) -> Tempered | None:
    """Draws of a posterior by sequential Monte Carlo from a start as wide as the prior.

    Args:
        density: The posterior.
        particles: Number S of particles.
        seed: Seed.
        few: The wider posterior of some of its rows, which is reached first: most stages then pass over these only.

    Returns:
        The draws; None where the log joint is finite nowhere near the prior's draws, with many latents (too many stages
        would be needed), or with the loop backend.
    """
    if density.dim > MOST_LATENTS or any(part.task.backend == "loop" for part in density.parts):
        return None
    generator = torch.Generator().manual_seed(seed)
    start = _start(density)
    levels = [density] if few is None else [few, density]
    points, log_evidence, size = start.draw(particles, generator), 0.0, 0.5 * density.dim**-0.25
    lower: LogDensity = partial(_normal, start)
    stages = [_Stage(points, [1.0, *([0.0] * len(levels))], 0.0)]
    for place, level in enumerate(levels):
        path = _Between(lower, level)
        ratio = path.log_ratio(points)
        if not bool(torch.isfinite(ratio).any()):
            return None
        while path.temperature < 1.0:
            if len(stages) > STAGES:
                return None
            rise = _rise(ratio, 1.0 - path.temperature)
            log_evidence += float((rise * ratio).logsumexp(0)) - math.log(particles)
            weight = torch.softmax(rise * ratio, 0)
            path.temperature = min(1.0, path.temperature + rise)
            whitened = moment_matched(points, weight)
            points = points[_systematic(weight, generator)]
            chains = Chains(path, generator, whitened, points, whiten=True, max_steps=MAX_STEPS, size=size)
            for _ in range(LAST_MOVES if level is density and path.temperature == 1.0 else MOVES):
                chains.step()
                chains.steps.update(chains.accepted)
            points, size = chains.position, chains.steps.size
            ratio = path.log_ratio(points, chains.log_joint)
            shares = [0.0] * (len(levels) + 1)
            shares[place : place + 2] = [1.0 - path.temperature, path.temperature]
            stages.append(_Stage(points, shares, log_evidence))
        lower = level.log_joint_gradient
    return _together(stages, start, levels)


def _normal(start: Gaussian, points: Tensor) -> tuple[Tensor, Tensor]:
    """Log density and gradient of the start, which is independent in its coordinates."""
    return start.log_prob(points), -(points - start.mean) * start.factor.diagonal() ** -2


def _start(density: Density) -> Gaussian:
    """An independent normal, wider than the prior's draws."""
    drawn = prior_draws(density, PRIOR_DRAWS, PRIOR_SEED)
    drawn = torch.where(torch.isfinite(drawn), drawn, 0.0)
    return Gaussian(drawn.mean(0), (WIDER * drawn.std(0)).clamp_min(1e-6).diag())


def _rise(ratio: Tensor, most: float) -> float:
    """The largest rise of the temperature that leaves enough particles effective."""

    def effective(rise: float) -> float:
        weight = torch.softmax(rise * ratio, 0)
        return float(1 / (weight**2).sum())

    there = int(torch.isfinite(ratio).sum())
    if effective(most) >= EFFECTIVE * there:
        return most
    low, high = math.log(LEAST_RISE), math.log(most)
    for _ in range(HALVINGS):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if effective(math.exp(middle)) >= EFFECTIVE * there else (low, middle)
    return math.exp(low)


def _systematic(weight: Tensor, generator: torch.Generator) -> Tensor:
    """Places of particles after resampling, ``(S,)``: each gets its share of S, rounded up or down."""
    count = len(weight)
    grid = (torch.arange(count, dtype=torch.float64) + float(torch.rand((), generator=generator))) / count
    return torch.searchsorted(weight.cumsum(0).cpu(), grid).clamp_max(count - 1).to(weight.device)


def _together(stages: list[_Stage], start: Gaussian, levels: list[Density]) -> Tempered:
    """All stages' particles, weighted against the mixture of the stages' densities."""
    points = torch.cat([stage.points for stage in stages])
    values = torch.stack([start.log_prob(points), *(level.log_joint(points) for level in levels)], 1)
    good = torch.isfinite(values).all(1)
    shares = points.new_tensor([stage.shares for stage in stages])
    evidence = points.new_tensor([stage.log_evidence for stage in stages])
    safe = torch.where(good[:, None], values, 0.0)
    mixture = (safe @ shares.T - evidence).logsumexp(1)
    log_weight = torch.where(good, safe[:, -1] - mixture, -torch.inf)
    log_joint = torch.where(good, safe[:, -1], -torch.inf)
    return Tempered(stages[-1].points, points, log_weight - log_weight.logsumexp(0), log_joint, stages[-1].log_evidence)
