"""The certificate of a distilled posterior: fresh draws of it, and one sweep of the full data at them."""

from __future__ import annotations

import math
from typing import Any

import torch

from bayesdd.certificate.estimates import corrected, estimate
from bayesdd.certificate.modes import uncovered_mode
from bayesdd.data.certificate import Certificate
from bayesdd.density.density import Density
from bayesdd.inference import hmc
from bayesdd.inference.draws import Draws
from bayesdd.inference.mode import fit, fits
from bayesdd.numerics.gaussian import Gaussian, moment_matched
from bayesdd.numerics.pareto import khat
from bayesdd.target.target import Target

CHAINS, DRAWS = 80, 50  # 4,000 draws; standard errors come from the spread between chains
FRESH = 1_000_003  # keeps the seeds of fresh draws apart from those of a distillation
NEGLIGIBLE_MODE = 100.0  # a mode of the distilled posterior with less than a hundredth of the mass is left out
LAPLACE_KHAT, LAPLACE_SHARE = 0.5, 0.5  # importance-corrected Laplace draws are used when both hold


def draw_distilled(density: Density, seed: int, *, count: int = CHAINS * DRAWS, start: Draws | None = None) -> Draws:
    """Draws of the distilled posterior for certificates: importance-corrected Laplace where that is good, else HMC.

    With ``start``, draws of a posterior close by, the chains start from these and are whitened by them.
    """
    # Its own stream of random numbers: the particles of a distillation of the same seed must not come back.
    generator = torch.Generator().manual_seed(FRESH * (seed + 1))
    gaussian = fit(density, seed=seed) if start is None else fit(density, start=start.flat.mean(0))
    if gaussian is not None:
        values, log_density = gaussian.draw_student(count, generator)
        log_weight = density.log_joint(values) - log_density
        log_weight = torch.where(torch.isfinite(log_weight), log_weight, -torch.inf)
        weight = torch.softmax(log_weight, 0)
        if khat(log_weight)[0] < LAPLACE_KHAT and float(1 / (weight**2).sum()) > LAPLACE_SHARE * count:
            return Draws(values[:, None], log_weight[:, None])
        warmup = 600 if len(gaussian.mean) > 20 else 300
    else:
        warmup = 800
    if start is not None:
        gaussian, warmup = moment_matched(start.flat), 150
    return _chains(density, count, seed, warmup, gaussian)


def _fresh(density: Density, seed: int, count: int, start: Draws | None) -> Draws:
    """Draws in every mode of the distilled posterior, so that one that the full posterior lacks is seen."""
    modes = fits(density, seed=seed)
    if sum(mode.log_mass > modes[0].log_mass - math.log(NEGLIGIBLE_MODE) for mode in modes) > 1:
        return _chains(density, count, seed, 300, None)
    return draw_distilled(density, seed, count=count, start=start)


def _chains(density: Density, count: int, seed: int, warmup: int, gaussian: Gaussian | None) -> Draws:
    chains = min(CHAINS, count)
    return hmc(density, draws=math.ceil(count / chains), chains=chains, seed=seed, warmup=warmup, gaussian=gaussian)


def certificate_of(
    target: Target,
    distilled: Density,
    tolerance: float,
    seed: int,
    start: Draws | None = None,
    known: Gaussian | None = None,
) -> Certificate:
    """The certificate of a distilled posterior within a tolerance in nats, from fresh draws and one sweep.

    ``start`` are earlier draws of it, to start the chains from; ``known`` is the full posterior's Laplace fit.
    """
    draws = _fresh(distilled, seed, CHAINS * DRAWS // target.draw_divisor, start)
    flat = draws.flat
    if known is None and (len(target.nuisance) or not target.exact):
        known = target.laplace  # which the sweep needs too
    full, error = target.with_control_variate(flat).log_likelihood(flat)
    ratio = full - distilled.sweep(flat)
    found: dict[str, Any] = estimate(ratio, draws, float(full[torch.isfinite(full)].abs().max()))
    for name in ("kl_reverse", "kl_forward", "half_variance"):
        # Noise in the log-ratio adds at most half its variance to a KL.
        found[f"{name}_se"] = math.hypot(found[f"{name}_se"], 0.5 * error**2)
    log_weight = draws.flat_log_weight
    ratio = torch.nan_to_num(ratio, nan=-torch.inf)
    table = corrected(target.student.constrain(flat), log_weight, ratio, target.student.names)
    generator = torch.Generator().manual_seed(seed)
    picked = torch.multinomial(torch.softmax(log_weight, 0).cpu(), min(1000, len(flat)), True, generator=generator)
    missed = uncovered_mode(target, distilled, flat[picked.to(flat.device)], seed, tolerance, known)
    return Certificate(
        **found,
        sweeps=target.joint.evaluations,
        gradients=target.joint.gradients,
        tolerance=tolerance,
        better_mode=missed,
        corrected=table,
    )
