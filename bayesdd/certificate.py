r"""The certificate: how far the distilled posterior is from the full one, in nats, with standard errors.

With draws of the distilled posterior and the log-ratio at them, both KL divergences, the half-variance, k-hat and
moments corrected to the full posterior are averages; their standard errors come from the influence function of each,
averaged chain by chain (HMC) or draw by draw (importance-corrected Laplace). The full data enter through one sweep.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import pandas as pd
import torch

from bayesdd import checks, verdict
from bayesdd.corrected import corrected
from bayesdd.density import MEMORY, Density
from bayesdd.devices import resolve
from bayesdd.distilled import Distilled
from bayesdd.estimates import estimate
from bayesdd.inference.draws import Draws
from bayesdd.inference.hmc import hmc
from bayesdd.inference.laplace import fit, fits
from bayesdd.modes import uncovered_mode
from bayesdd.pareto import khat
from bayesdd.problem import density_of
from bayesdd.target import Target, moment_matched
from bayesdd.task import Task

CHAINS, DRAWS = 80, 50
FRESH = 1_000_003
NEGLIGIBLE_MODE = 100.0  # a mode of the distilled posterior with less than a hundredth of the mass is left out
LAPLACE_KHAT, LAPLACE_SHARE = 0.5, 0.5  # importance-corrected Laplace draws are used when both hold


class CertificateWarning(UserWarning):
    """A distilled set was returned, but its posterior is not certified to be that of the full data."""


@dataclass(frozen=True)
class Certificate:
    """How far a distilled posterior is from the full one.

    Attributes:
        kl_reverse: KL(distilled, full), nats.
        kl_forward: KL(full, distilled), nats; with k-hat above 0.7 only a lower bound (its standard error is infinite).
        half_variance: Half the variance of the log-ratio under the distilled posterior, nats.
        khat: Pareto shape of the importance weights full / distilled.
        ess: Effective sample size of those weights.
        sweeps: Draws at which the log-likelihood of all real rows was computed, since the start of the distillation.
        gradients: The same for gradients (a Hessian counts P).
        draws: Draws of the distilled posterior behind the estimates.
        tolerance: What both KLs plus two standard errors must stay within, nats.
        better_mode: Whether a mode of the full posterior was found that the distilled draws do not cover.
        corrected: Table: mean and sd of every parameter, corrected to the full posterior and as distilled.
        mean_error: Of predictions (``matching.function_space``): error of the mean in predictive sds, root mean square.
        spread_ratio: Of predictions: predictive sd of the students over the target's, geometric mean.
    """

    kl_reverse: float
    kl_reverse_se: float
    kl_forward: float
    kl_forward_se: float
    half_variance: float
    half_variance_se: float
    khat: float
    khat_se: float
    ess: float
    ess_se: float
    sweeps: float
    gradients: float
    draws: int
    tolerance: float
    better_mode: bool = False
    corrected: pd.DataFrame | None = None
    sweeps_se: float = 0.0
    mean_error: float = math.nan
    mean_error_se: float = math.nan
    spread_ratio: float = math.nan
    spread_ratio_se: float = math.nan

    @property
    def ok(self) -> bool:
        """Both KLs plus two standard errors within the tolerance, k-hat below 0.7, no uncovered mode found.

        Of predictions: error and log ratio of spreads within it, each with two standard errors.
        """
        return not self.reasons

    @property
    def reasons(self) -> list[str]:
        """Why it is not ok, one line each; empty if it is."""
        return verdict.reasons(self)

    def __str__(self) -> str:
        """The verdict and its numbers."""
        return verdict.text(self)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able: infinities and NaN as strings, the table by columns."""
        values = {key: value for key, value in asdict(self).items() if key != "corrected"}
        plain = {k: repr(v) if isinstance(v, float) and not math.isfinite(v) else v for k, v in values.items()}
        return {**plain, "corrected": None if self.corrected is None else self.corrected.to_dict("split")}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Certificate:
        """The inverse of ``to_dict``; unknown keys of later versions are left out."""
        known = {field.name for field in fields(cls)}
        kept = {k: v for k, v in values.items() if k in known and k != "corrected"}
        plain: dict[str, Any] = {k: float(v) if isinstance(v, str) else v for k, v in kept.items()}
        table = values.get("corrected")
        return cls(**plain, corrected=None if table is None else pd.DataFrame(**table))


def draw_distilled(density: Density, seed: int, *, count: int = CHAINS * DRAWS, start: Draws | None = None) -> Draws:
    """Draws of the distilled posterior for certificates: importance-corrected Laplace where that is good, else HMC.

    Args:
        density: The distilled posterior.
        seed: Seed.
        count: Number of draws.
        start: Draws of a posterior close by, to start and whiten the chains from.
    """
    # A stream of its own: the particles of a distillation with the same seed must not come back as "fresh" draws.
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
    chains = min(CHAINS, count)
    return hmc(density, draws=math.ceil(count / chains), chains=chains, seed=seed, warmup=warmup, gaussian=gaussian)


def _fresh(density: Density, seed: int, count: int, start: Draws | None) -> Draws:
    """Draws for a certificate, in every mode of the distilled posterior: one that the full one lacks must be seen."""
    modes = fits(density, seed=seed)
    if sum(mode.log_mass > modes[0].log_mass - math.log(NEGLIGIBLE_MODE) for mode in modes) > 1:
        chains = min(CHAINS, count)
        return hmc(density, draws=math.ceil(count / chains), chains=chains, seed=seed, warmup=300)
    return draw_distilled(density, seed, count=count, start=start)


def certificate_of(
    target: Target, distilled: Density, tolerance: float, seed: int, start: Draws | None = None
) -> Certificate:
    """The certificate of a distilled posterior, from fresh draws and one sweep.

    Args:
        target: The full posterior.
        distilled: The distilled posterior.
        tolerance: Nats.
        seed: Seed of the fresh draws.
        start: Earlier draws of the distilled posterior, to start the chains from.
    """
    draws = _fresh(distilled, seed, CHAINS * DRAWS // target.thrift, start)
    flat = draws.flat
    full = target.log_likelihood(flat)
    ratio = full - distilled.sweep(flat)
    found: dict[str, Any] = estimate(ratio, draws, float(full[torch.isfinite(full)].abs().max()))
    for name in ("kl_reverse", "kl_forward", "half_variance"):
        # Noise of the sweeps inside the exponential adds at most half its variance.
        found[f"{name}_se"] = math.hypot(found[f"{name}_se"], 0.5 * target.sweep_error**2)
    log_weight = torch.zeros_like(ratio) if draws.log_weight is None else draws.log_weight.flatten()
    table = corrected(target.student.constrain(flat), log_weight, torch.nan_to_num(ratio, nan=-torch.inf))
    generator = torch.Generator().manual_seed(seed)
    picked = torch.multinomial(torch.softmax(log_weight, 0).cpu(), min(1000, len(flat)), True, generator=generator)
    missed = uncovered_mode(target, distilled, flat[picked.to(flat.device)], seed, tolerance)
    return Certificate(
        **found,
        sweeps=target.joint.evaluations,
        gradients=target.joint.gradients,
        tolerance=tolerance,
        better_mode=missed,
        corrected=table,
    )


def certify(
    target: Task | Sequence[Task],
    distilled: Distilled,
    *,
    seed: int = 1,
    student: Task | None = None,
    tolerance: float | None = None,
    device: str = "auto",
    memory: int = MEMORY,
    exact: bool = False,
    objective: Callable[..., Any] | None = None,
) -> Certificate:
    """Says in nats how far a distilled posterior is from the full one, from fresh draws and one sweep of the full data.

    Args:
        target: The task, or several whose log-likelihoods add.
        distilled: The distilled set.
        seed: Seed of the draws.
        student: The task that the distilled rows belong to; default the target itself.
        tolerance: KL in nats that counts as certified; default 0.05.
        device: ``auto``, ``cpu`` or ``cuda``.
        memory: Bytes that the intermediate tensors of one block of rows and draws may take.
        exact: Sweep all rows at all draws. Without it, sweeps over 100,000 rows or more take few of them where the rest
            is a second-order expansion with an error below a hundredth of a nat (``bayesdd.control``).
        objective: ``partial(matching.function_space, ...)`` for a set that matches predictions; tolerance in sds then.

    Returns:
        The certificate; nothing warns, ask ``.ok``.

    Raises:
        ValueError: The set does not belong to the task, or matches predictions and no objective says which.
    """
    verdict.refuse_unnamed(distilled.provenance, objective)
    tasks = [target] if isinstance(target, Task) else list(target)
    learner = checks.learner(tasks, student)
    distilled.check(learner)
    where = resolve(device if objective is None else "cpu")
    goal = Target(tasks, learner, where, seed, memory, exact=exact)
    if objective is not None:
        alone = objective(goal, seed, verdict.silent)
        found: Certificate = alone.certificate(*distilled.hard(), tolerance or alone.tolerance, seed)
        return found
    return certificate_of(goal, density_of(learner, distilled, where), 0.05 if tolerance is None else tolerance, seed)
