r"""Sequential Monte Carlo from a wide start to a posterior: draws that no mode search has chosen.

.. math:: f_t \propto q^{1 - \beta_t} f^{\beta_t}, \qquad 0 = \beta_0 < \dots < \beta_T = 1

q is a normal as wide as the prior, f the posterior. Particles are reweighted from one stage to the next, resampled, and
moved by Hamiltonian transitions; the temperature rises as fast as half of the particles stay effective. Regions get
particles in proportion to their mass, whether they are modes or not. The particles of all stages together, weighted
against the mixture of all stages, also see regions with less mass than one particle: these held more at earlier stages.

Cost: about ``stages * moves * 8`` gradients of all particles; stages grow as the root of P times the log of how much
narrower the posterior is.

Source: Del Moral, Doucet & Jasra, "Sequential Monte Carlo samplers", JRSS B 2006; for the weights of all stages
Veach & Guibas, "Optimally combining sampling techniques for Monte Carlo rendering", SIGGRAPH 1995.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from bayesdd.density.density import Density
from bayesdd.inference.leapfrog import Chains
from bayesdd.inference.mode import prior_draws
from bayesdd.numerics.gaussian import Gaussian, moment_matched

EFFECTIVE = 0.5  # share of particles that a rise of the temperature leaves effective
PRIOR_DRAWS = 64  # that place and scale the start
WIDER = 1.5  # the start's sds in units of the prior's
MOVES, LAST_MOVES = 2, 4  # transitions a stage, and after the last one
MAX_STEPS = 12  # leapfrog steps of a transition: particles need to move locally only
STAGES = 150  # most stages; a posterior that needs more is left to other methods
LEAST_RISE = 1e-9  # of the temperature


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


class _Path:
    """The density of one stage, up to a constant; serves leapfrog transitions."""

    def __init__(self, density: Density, start: Gaussian) -> None:
        self.density, self.start, self.temperature = density, start, 0.0
        self.dim, self.device = density.dim, density.device
        self._precision = start.factor.diagonal() ** -2  # the start is independent in its coordinates

    def log_joint_gradient(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Value ``(S,)`` and gradient ``(S, P)``; minus infinity and 0 where the posterior's are not finite."""
        value, slope = self.density.log_joint_gradient(points)
        ratio = value - self.start.log_prob(points)
        pull = -(points - self.start.mean) * self._precision
        good = torch.isfinite(ratio) & torch.isfinite(slope).all(1)
        warm = self.start.log_prob(points) + self.temperature * ratio
        tilted = pull + self.temperature * (slope - pull)
        return torch.where(good, warm, -torch.inf), torch.where(good[:, None], tilted, 0.0)

    def log_ratio(self, points: Tensor, log_density: Tensor) -> Tensor:
        """Log of posterior over start, from this stage's log density at points."""
        return (log_density - self.start.log_prob(points)) / self.temperature


def tempered(density: Density, *, particles: int, seed: int) -> Tempered | None:
    """Draws of a posterior by sequential Monte Carlo from a start as wide as the prior.

    Args:
        density: The posterior.
        particles: Number S of particles.
        seed: Seed.

    Returns:
        The draws; None where the log joint is finite nowhere near the prior's draws, or too many stages are needed.
    """
    generator = torch.Generator().manual_seed(seed)
    start = _start(density, seed)
    path = _Path(density, start)
    points = start.draw(particles, generator)
    log_joint = density.log_joint(points)
    ratio = torch.where(torch.isfinite(log_joint), log_joint - start.log_prob(points), -torch.inf)
    if not bool(torch.isfinite(ratio).any()):
        return None
    stages, log_evidence, size = [(points, ratio, 0.0, 0.0)], 0.0, 0.5 * density.dim**-0.25
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
        for _ in range(MOVES if path.temperature < 1.0 else LAST_MOVES):
            chains.step()
            chains.steps.update(chains.accepted)
        points, size = chains.position, chains.steps.size
        ratio = path.log_ratio(points, chains.log_joint)
        stages.append((points, ratio, path.temperature, log_evidence))
    return _together(stages, start)


def _start(density: Density, seed: int) -> Gaussian:
    """An independent normal, wider than the prior's draws."""
    drawn = prior_draws(density, PRIOR_DRAWS, seed)
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
    for _ in range(40):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if effective(math.exp(middle)) >= EFFECTIVE * there else (low, middle)
    return math.exp(low)


def _systematic(weight: Tensor, generator: torch.Generator) -> Tensor:
    """Places of particles after resampling, ``(S,)``: each gets its share of S, rounded up or down."""
    count = len(weight)
    grid = (torch.arange(count, dtype=torch.float64) + float(torch.rand((), generator=generator))) / count
    return torch.searchsorted(weight.cumsum(0).cpu(), grid).clamp_max(count - 1).to(weight.device)


def _together(stages: list[tuple[Tensor, Tensor, float, float]], start: Gaussian) -> Tempered:
    """All stages' particles, weighted against the mixture of the stages' densities."""
    points = torch.cat([stage[0] for stage in stages])
    ratio = torch.cat([stage[1] for stage in stages])
    temperature = torch.tensor([stage[2] for stage in stages], dtype=torch.float64, device=points.device)
    evidence = torch.tensor([stage[3] for stage in stages], dtype=torch.float64, device=points.device)
    finite = torch.where(torch.isfinite(ratio), ratio, -1e300)
    mixture = (temperature * finite[:, None] - evidence).logsumexp(1)
    log_weight = torch.where(torch.isfinite(ratio), ratio - mixture, -torch.inf)
    log_joint = ratio + start.log_prob(points)
    return Tempered(stages[-1][0], points, log_weight - log_weight.logsumexp(0), log_joint, stages[-1][3])
