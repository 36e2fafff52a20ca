r"""Linear-Gaussian rows with missing entries that stand for sources, by least squares at draws of the posterior.

At fixed draws the log-likelihood of rows is linear in their weighted moments (``moments``), and so is the
log-ratio

.. math:: \Delta(\theta_s) = l_D(\theta_s) - \sum_p A_p(\theta_s) \cdot \text{moments}_p(U, w).

The rows minimise half its variance, which is the KL to second order in either direction: one product with a fixed
matrix a pattern, whatever the number of real rows. Where sources are noisy, some rows keep only every second slice of a
pattern: over two steps a network is noisier, which imitates the measurement noise that the student does not have and
takes three quarters off the half-variance. Unknown noise scales
:math:`\tau` of the sources are integrated out by
:math:`p(y \mid \theta) = p(y, \tau \mid \theta) / p(\tau \mid \theta, y)` at their own draws, the last factor by a
linear-Gaussian regression of :math:`\log\tau` on theta. Source: Chib, "Marginal likelihood from the Gibbs output",
JASA 1995.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from bayesdd.dbn.inference.pooling import Pooled
from bayesdd.dbn.likelihood import parameters
from bayesdd.dbn.likelihood.gaussian import as_rows, entries, grouped
from bayesdd.dbn.likelihood.tasks import thinnings
from bayesdd.dbn.merging.moments import Joint, moments
from bayesdd.dbn.merging.ranges import Ranges
from bayesdd.dbn.template.template import Template
from bayesdd.distillation.problem import SMALLEST_WEIGHT
from bayesdd.distillation.stratified import choose
from bayesdd.numerics.optimise import lbfgs
from bayesdd.numerics.pareto import khat
from bayesdd.objectives import half_variance
from bayesdd.task import kinds

ITERATIONS = 800
ENOUGH = 1e-5  # nats
HELD_OUT = 0.25  # share of the draws, whole chains, that judge


@dataclass(frozen=True)
class Gap:
    """How far apart two posteriors are, nats, at draws of the full one."""

    half_variance: float
    kl_forward: float
    kl_reverse: float
    khat: float

    @classmethod
    def of(cls, ratio: Tensor) -> Gap:
        """From the log-ratio at equally weighted draws of the full posterior, ``(S,)``."""
        ratio = ratio - ratio.mean()
        evidence = (-ratio).logsumexp(0) - math.log(len(ratio))
        weight = torch.softmax(-ratio, 0)
        half = float(ratio.var() / 2)
        return cls(half, float(evidence), float(-(weight @ ratio) - evidence), float(khat(-ratio)[0]))


@dataclass(frozen=True, eq=False)
class Match:
    """The least-squares problem: rows of given patterns against a log-likelihood at draws.

    Attributes:
        target: l_D at the draws ``(S,)``, nats.
        log_weight: Normalised log weights of the draws ``(S,)``.
        seen: Which entries each row has, ``(M, n)``.
        groups: For every pattern: its rows ``(m,)``, its entries ``(r,)``, its linear map ``(S, F)``.
        centre: Of every entry ``(n,)``.
        scale: Of every entry ``(n,)``.
    """

    target: Tensor
    log_weight: Tensor
    seen: Tensor
    groups: list[tuple[Tensor, Tensor, Tensor]]
    centre: Tensor
    scale: Tensor

    @classmethod
    def of(
        cls, joint: Joint, student: Template, target: Tensor, seen: Tensor, log_weight: Tensor | None = None
    ) -> Match:
        """At the draws of a joint Gaussian, for rows with the student's noise."""
        groups = [(rows, at, joint.coefficients(student, at)) for rows, at in grouped(seen)]
        even = torch.full_like(target, -math.log(len(target))) if log_weight is None else log_weight
        centre = joint.mean.mean(0)
        return cls(target, even, seen, groups, centre, joint.covariance.mean(0).diagonal().sqrt())

    def ratio(self, flat: Tensor, weight: Tensor) -> Tensor:
        """The log-ratio at the draws, ``(S,)``, of rows ``(M, n)`` and weights ``(M,)``."""
        total = self.target
        for rows, at, linear in self.groups:
            total = total - linear @ moments(flat[rows][:, at], weight[rows])
        return total

    def solved(
        self, start: Tensor, weight: Tensor, *, equal_weights: bool = False, ranges: Ranges | None = None
    ) -> tuple[Tensor, Tensor]:
        """Rows ``(M, n)``, within ranges of the entries if given, NaN where they have no entry; weights ``(M,)``."""
        start = start if ranges is None else ranges.free(start.nan_to_num())
        log_weight = weight.log().mean()[None] if equal_weights else weight.log()
        white = ((start - self.centre) / self.scale)[self.seen]

        def placed(vector: Tensor) -> tuple[Tensor, Tensor]:
            flat = vector.new_zeros(self.seen.shape).masked_scatter(self.seen, vector[: len(white)])
            weight = vector[len(white) :].exp().clamp_min(SMALLEST_WEIGHT)
            flat = self.centre + self.scale * flat
            return flat if ranges is None else ranges.inside(flat), weight.expand(len(self.seen))

        def aim(vector: Tensor) -> Tensor:
            return half_variance(self.ratio(*placed(vector)), self.log_weight)

        found, _ = lbfgs(aim, torch.cat([white, log_weight]), ITERATIONS, enough=ENOUGH)
        flat, weight = placed(found)
        return torch.where(self.seen, flat, torch.nan), weight


def masked_rows(full: Pooled, size: int, *, seed: int, equal_weights: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Rows with the sources' patterns of missing entries whose posterior is closest to the given one.

    Returns:
        Sequences ``(M, T, V)``, static values ``(M, V_s)``, weights ``(M,)``, and the log-ratio at draws
        that the fit has not seen, nats.
    """
    template, generator = full.template, torch.Generator().manual_seed(seed)
    real = torch.cat([entries(template, *rows) for rows in full.rows])
    noisy = any(source.noisy for source in full.noisy)
    seen, weight = patterns(template, real, size, full.slices, generator, noisy=noisy)
    joint = Joint.of(template, full.draws, full.slices)
    target = log_likelihood(full, joint)
    last = int(len(target) * (1 - HELD_OUT))
    match = Match.of(joint, template, target, seen)
    start = entries(template, *parameters.simulated(template, full.draws, size, full.slices, seed))
    fitted, ranges = _part(match, slice(None, last)), Ranges.of(template, full.sources)
    ranges = ranges.entries(len(template.static), full.slices)
    flat, weight = fitted.solved(start, weight, equal_weights=equal_weights)
    if ranges.left(flat):
        flat, weight = fitted.solved(flat, weight, equal_weights=equal_weights, ranges=ranges)
    ratio = _part(match, slice(last, None)).ratio(flat.nan_to_num(), weight)
    return *as_rows(template, flat, full.slices), weight, ratio


def log_likelihood(full: Pooled, joint: Joint) -> Tensor:
    """l_D of all sources at the draws, unknown noise scales integrated out, nats: ``(S,)``."""
    total = torch.zeros(len(joint.mean), dtype=torch.float64)
    for noisy, rows in zip(full.noisy, full.rows, strict=True):
        total = total + joint.log_likelihood(noisy, entries(noisy, *rows))
    sites = list(dict.fromkeys(site for noisy in full.noisy for site in noisy.noise_sites))
    if not sites:
        return total
    logs = torch.stack([full.draws[site].log() for site in sites], 1)
    prior = torch.distributions.HalfNormal(full.template.noise_scale).log_prob(logs.exp()) + logs
    design = torch.cat([torch.ones(len(logs), 1), parameters.unconstrain(full.template, full.draws)], 1)
    left = logs - design @ torch.linalg.lstsq(design, logs).solution
    spread = left.mT @ left / (len(left) - design.shape[1])
    conditional = torch.distributions.MultivariateNormal(torch.zeros(len(sites)).double(), spread)
    found: Tensor = total + prior.sum(1) - conditional.log_prob(left)
    return found


def patterns(
    template: Template, real: Tensor, size: int, slices: int, generator: torch.Generator, *, noisy: bool
) -> tuple[Tensor, Tensor]:
    """Which entries M rows have ``(M, n)``, and starting weights ``(M,)``, by the patterns of real rows ``(N, n)``.

    Where they are noisy, of every three rows of a pattern one lacks every second slice, and one the others.
    """
    picked, weight = choose({"row": real}, {"row": kinds.real}, size, generator)
    found = ~real[picked].isnan()
    met: dict[tuple[bool, ...], int] = {}
    for row, pattern in enumerate(found.tolist() if noisy else []):
        turn = met[tuple(pattern)] = met.get(tuple(pattern), -1) + 1
        found[row] = thinnings(template, found[row], slices)[turn % 3]
    return found, weight


def _part(match: Match, some: slice) -> Match:
    log_weight = match.log_weight[some]
    groups = [(rows, at, linear[some]) for rows, at, linear in match.groups]
    log_weight = log_weight - log_weight.logsumexp(0)
    return Match(match.target[some], log_weight, match.seen, groups, match.centre, match.scale)
