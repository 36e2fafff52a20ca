"""The certificate of a distilled posterior: fresh draws of it, and one sweep of the full data at them."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from bayesdd.certificate.estimates import corrected, estimate
from bayesdd.certificate.looks import explored, hints, second_look
from bayesdd.certificate.modes import modes_of_rows
from bayesdd.data.certificate import Certificate
from bayesdd.density.density import Density
from bayesdd.inference import hmc
from bayesdd.inference.draws import Draws
from bayesdd.inference.mode import fit
from bayesdd.inference.sequential import Tempered
from bayesdd.numerics.gaussian import Gaussian, log_mixture, mixture, moment_matched
from bayesdd.numerics.pareto import khat
from bayesdd.target.target import Target

CHAINS, DRAWS = 80, 50  # 4,000 draws; standard errors come from the spread between chains
FRESH = 1_000_003  # keeps the seeds of fresh draws apart from those of a distillation
LAPLACE_KHAT, LAPLACE_SHARE = 0.5, 0.45  # importance-corrected Laplace draws are used when both hold
DEFENCE, DEFENDED = 2.0, 0.1  # in sds, and of all draws: for exponential tails (few events, the log of their rate)
TOO_FEW = 10.0  # times denser than its Laplace draws: a posterior is not covered by them there
MISSED = 1e-4  # mass of such places from which draws are added there
SERIOUS = 0.1  # of the tolerance: cost of mass far off from which the second look is believed
WIDENED = 4  # most such places
KERNEL = 0.1  # posterior sds around such particles where they are too few to know a width
WIDER, LEAST_SHARE = 1.5, 0.05  # in sds, and of all draws: what draws added there must reach
MORE = 4  # times as many draws where both KLs are within the tolerance but for their standard errors


def draw_distilled(density: Density, seed: int, *, count: int = CHAINS * DRAWS, start: Draws | None = None) -> Draws:
    """Draws of the distilled posterior: importance-corrected Laplace where that is good, else HMC.

    With ``start``, draws of a posterior close by, the chains start from these and are whitened by them.
    """
    gaussian = fit(density, seed=seed) if start is None else fit(density, start=start.flat.mean(0))
    modes = [] if gaussian is None else [gaussian]
    return _weighted(density, modes, seed, count, None) or _chains(density, modes, seed, count, start, None)


def _weighted(density: Density, modes: list[Gaussian], seed: int, count: int, own: Tempered | None) -> Draws | None:
    """Importance-weighted draws around modes, and where tempered particles show mass that these do not cover.

    None where the weights are too uneven.
    """
    if not modes:
        return None
    # Its own stream of random numbers: the particles of a distillation of the same seed must not come back.
    generator = torch.Generator().manual_seed(FRESH * (seed + 1))
    wide = math.log(DEFENDED / (1 - DEFENDED))
    parts = [*modes, *(_of_mass(mode.mean, DEFENCE * mode.factor, mode.log_mass + wide) for mode in modes)]
    known = len(parts)
    while True:
        values, log_density = mixture(parts, count, generator)
        log_weight = density.log_joint(values) - log_density
        log_weight = torch.where(torch.isfinite(log_weight), log_weight, -torch.inf)
        evidence = float(log_weight.logsumexp(0)) - math.log(count)
        missed = None if own is None else _missed(own, parts, evidence)
        if missed is None or len(parts) - known >= WIDENED:
            break
        parts.append(missed)
    weight = torch.softmax(log_weight, 0)
    uneven = khat(log_weight)[0] >= LAPLACE_KHAT or float(1 / (weight**2).sum()) <= LAPLACE_SHARE * count
    return None if uneven or missed is not None else Draws(values[:, None], log_weight[:, None])


def _missed(own: Tempered, parts: list[Gaussian], evidence: float) -> Gaussian | None:
    """A normal at particles where the posterior is much denser than a proposal: a slab, a heavy tail, another mode."""
    dense = own.log_joint - log_mixture(parts, own.every) - evidence
    there = (dense > math.log(TOO_FEW)) & (own.log_weight > -math.inf)
    weight = torch.where(there, own.log_weight, -torch.inf).exp()
    mass = float(weight.sum())
    if mass < MISSED:
        return None
    at, share = own.every[there], weight[there] / mass
    if float(1 / (share**2).sum()) > 2 * at.shape[1]:
        found = moment_matched(at, share)
    else:  # too few for a spread of their own
        found = Gaussian(share @ at, KERNEL * moment_matched(own.points).factor)
    return _of_mass(found.mean, WIDER * found.factor, evidence + math.log(max(mass, LEAST_SHARE)))


def _of_mass(mean: Tensor, factor: Tensor, log_mass: float) -> Gaussian:
    """A normal of that mass, nats."""
    flat = Gaussian(mean, factor, 0.0)
    return replace(flat, height=log_mass - flat.log_mass)


def _chains(
    density: Density, modes: list[Gaussian], seed: int, count: int, start: Draws | None, own: Tempered | None
) -> Draws:
    """HMC chains: from tempered particles, which lie in every region in proportion to its mass; else from a fit."""
    chains, begin = min(CHAINS, count), None
    gaussian, warmup = (modes[0], 600 if density.dim > 20 else 300) if modes else (None, 800)
    if start is not None:
        gaussian, warmup = moment_matched(start.flat), 150
    if own is not None:
        begin = own.points[torch.linspace(0, len(own.points) - 1, chains).long().to(own.points.device)]
        gaussian = moment_matched(own.points) if gaussian is None or len(modes) > 1 else gaussian
    return hmc(
        density,
        draws=math.ceil(count / chains),
        chains=chains,
        seed=FRESH * (seed + 1),
        warmup=warmup,
        gaussian=gaussian,
        start=begin,
    )


def certificate_of(
    target: Target,
    distilled: Density,
    tolerance: float,
    seed: int,
    start: Draws | None = None,
    known: Gaussian | None = None,
) -> Certificate:
    """The certificate of a distilled posterior within a tolerance in nats: two independent looks.

    The first draws from the distilled posterior and sweeps the full data there: its are the numbers. The second
    (``bayesdd.certificate.looks``) can only contradict it.

    ``start`` are earlier draws of it, to start the chains from; ``known`` is the full posterior's Laplace fit.
    """
    own = explored(distilled, seed)
    own_modes = modes_of_rows(distilled, hints(own, distilled, seed), seed)
    if known is None and (len(target.nuisance) or not target.exact):
        known = target.laplace  # which the sweep needs too
    count = CHAINS * DRAWS // target.draw_divisor
    for more in (1, MORE):
        modes, wanted = own_modes.modes, more * count
        draws = _weighted(distilled, modes, seed, wanted, own) or _chains(distilled, modes, seed, wanted, start, own)
        found, ratio = _first_look(target, distilled, draws)
        if not _undecided(found, tolerance):
            break
    log_weight = draws.flat_log_weight
    table = corrected(
        target.student.constrain(draws.flat),
        log_weight,
        torch.nan_to_num(ratio, nan=-torch.inf),
        target.student.names,
    )

    def log_ratio(points: Tensor) -> Tensor:
        return target.log_likelihood(points)[0] - distilled.sweep(points)

    look = second_look(target, own, own_modes, log_ratio, _log_evidence_ratio(ratio, log_weight), seed, known)
    doubts = []
    for name, side in (("kl_reverse", look.reverse), ("kl_forward", look.forward)):
        error, short = found[f"{name}_se"], side.least - found[name]
        if side.far > SERIOUS * tolerance and short > 2 * error:
            # Mass that the second look has met by few draws: what it says is a lower bound.
            found |= {name: side.least, f"{name}_se": math.inf}
            doubts.append((side.least, side.why))
        elif short > 2 * error:
            found[f"{name}_se"] = math.hypot(error, 0.5 * short)
    return Certificate(
        **found,
        sweeps=target.joint.evaluations,
        gradients=target.joint.gradients,
        tolerance=tolerance,
        corrected=table,
        doubt=max(doubts)[1] if doubts else "",
        modes=look.modes,
        searches=look.searches,
        particles=look.particles,
    )


def _first_look(target: Target, distilled: Density, draws: Draws) -> tuple[dict[str, Any], Tensor]:
    """Estimates of all functionals at draws of the distilled posterior, and the log-ratio there, nats."""
    flat = draws.flat
    full, error = target.with_control_variate(flat).log_likelihood(flat)
    ratio = full - distilled.sweep(flat)
    found = estimate(ratio, draws, float(torch.nan_to_num(full, nan=0.0, posinf=0.0, neginf=0.0).abs().max()))
    for name in ("kl_reverse", "kl_forward", "half_variance"):
        # Noise in the log-ratio adds at most half its variance to a KL.
        found[f"{name}_se"] = math.hypot(found[f"{name}_se"], 0.5 * error**2)
    return found, ratio


def _undecided(found: dict[str, Any], tolerance: float) -> bool:
    """Whether more draws may tell: both KLs are within the tolerance, and two standard errors are not."""
    pairs = [(found[name], found[f"{name}_se"]) for name in ("kl_reverse", "kl_forward")]
    within = all(value <= tolerance and math.isfinite(error) for value, error in pairs)
    return within and any(value + 2 * error > tolerance for value, error in pairs)


def _log_evidence_ratio(log_ratio: Tensor, log_weight: Tensor) -> float:
    """Log of full over distilled evidence, nats, from draws of the distilled posterior."""
    here = torch.isfinite(log_ratio)
    weighted = (log_weight + log_ratio)[here].logsumexp(0) - log_weight[here].logsumexp(0)
    return float(weighted) if bool(here.any()) else -math.inf
