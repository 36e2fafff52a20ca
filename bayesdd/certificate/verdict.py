"""The certificate of a distilled posterior: fresh draws of it, and one sweep of the full data at them."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from bayesdd.certificate.estimates import corrected, estimate
from bayesdd.certificate.looks import explored, hints, second_look
from bayesdd.certificate.modes import Found, modes_of_rows
from bayesdd.certificate.proposal import FRESH, proposed
from bayesdd.data.certificate import Certificate
from bayesdd.density.density import Density
from bayesdd.inference import hmc
from bayesdd.inference.draws import Draws
from bayesdd.inference.mode import fit
from bayesdd.inference.sequential import Tempered
from bayesdd.numerics.gaussian import Gaussian, moment_matched
from bayesdd.target.target import Target

CHAINS, DRAWS = 80, 50  # 4,000 draws; standard errors come from the spread between chains
SERIOUS = 0.1  # of the tolerance: cost of mass far off from which the second look is believed
MORE = 4  # times as many draws where both KLs are within the tolerance but for their standard errors


def draw_distilled(density: Density, seed: int, *, count: int = CHAINS * DRAWS, start: Draws | None = None) -> Draws:
    """Draws of the distilled posterior: importance-corrected Laplace where that is good, else HMC.

    With ``start``, draws of a posterior close by, the chains start from these and are whitened by them.
    """
    gaussian = fit(density, seed=seed) if start is None else fit(density, start=start.flat.mean(0))
    modes = [] if gaussian is None else [gaussian]
    proposal = proposed(density, Found(modes, 1), seed, count, None)
    drawn = None if proposal is None else proposal.draws
    return drawn or _chains(density, modes, seed, count, start, None)


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
        proposal = proposed(distilled, own_modes, seed, more * count, own)
        own_modes = own_modes if proposal is None else proposal.modes
        if proposal is None or proposal.draws is None:
            proposal, draws = None, _chains(distilled, own_modes.modes, seed, more * count, start, own)
        else:
            draws = proposal.draws
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

    usual = _log_evidence_ratio(ratio, log_weight)
    look = second_look(target, own, own_modes, proposal, log_ratio, usual, seed, known)
    doubts = []
    for name, side in (("kl_reverse", look.reverse), ("kl_forward", look.forward)):
        error, short = found[f"{name}_se"], side.least - found[name]
        if side.far > SERIOUS * tolerance and short > (2 * error if math.isfinite(error) else 0.0):
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
