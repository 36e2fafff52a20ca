r"""The certificate: how far the distilled posterior is from the full one, in nats, with standard errors.

With draws of the distilled posterior and the log-ratio at them, both KL divergences, the half-variance, k-hat and
moments corrected to the full posterior are averages; their standard errors come from the influence function of each,
averaged chain by chain (HMC) or draw by draw (importance-corrected Laplace). The full data enter through one sweep.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from bayesdd import checks
from bayesdd.density import Density
from bayesdd.devices import resolve
from bayesdd.distilled import Distilled
from bayesdd.inference.draws import Draws
from bayesdd.inference.hmc import hmc
from bayesdd.inference.laplace import Gaussian, climb, fit, newton, scattered
from bayesdd.objectives import forward_kl, half_variance, reverse_kl
from bayesdd.pareto import khat
from bayesdd.problem import density_of
from bayesdd.target import Target, moment_matched
from bayesdd.task import Task

CHAINS, DRAWS = 80, 50
KHAT_LIMIT = 0.7
LAPLACE_KHAT, LAPLACE_SHARE = 0.5, 0.5  # importance-corrected Laplace draws are used when both hold
ROUNDING = 1e-11  # of the log-likelihood: what float64 sums cannot resolve


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

    @property
    def ok(self) -> bool:
        """Both KLs plus two standard errors within the tolerance, k-hat below 0.7, no uncovered mode found."""
        return not self.reasons

    @property
    def reasons(self) -> list[str]:
        """Why it is not ok, one line each; empty if it is."""
        found = []
        for name in ("kl_reverse", "kl_forward"):
            value, error = getattr(self, name), getattr(self, f"{name}_se")
            if not value + 2 * error <= self.tolerance:
                found.append(f"{name} {_nats(value, error)} exceeds the tolerance of {self.tolerance:g} nats")
        if not self.khat < KHAT_LIMIT:
            found.append(f"k-hat {self.khat:.2f} is not below {KHAT_LIMIT}")
        if self.better_mode:
            found.append("the full posterior has a mode that the distilled posterior does not cover")
        return found

    def __str__(self) -> str:
        """The verdict and its numbers."""
        verdict = "certified" if self.ok else "NOT certified: " + "; ".join(self.reasons)
        return (
            f"{verdict}\n"
            f"  KL(distilled, full) {_nats(self.kl_reverse, self.kl_reverse_se)}\n"
            f"  KL(full, distilled) {_nats(self.kl_forward, self.kl_forward_se)}\n"
            f"  half-variance       {_nats(self.half_variance, self.half_variance_se)}\n"
            f"  k-hat {self.khat:.2f}, effective draws {self.ess:.0f} of {self.draws}, sweeps {self.sweeps:.0f}, gradients {self.gradients:.0f}"
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON-able: infinities and NaN as strings, the table by columns."""
        values = {key: value for key, value in asdict(self).items() if key != "corrected"}
        plain = {k: repr(v) if isinstance(v, float) and not math.isfinite(v) else v for k, v in values.items()}
        return {**plain, "corrected": None if self.corrected is None else self.corrected.to_dict("split")}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Certificate:
        """The inverse of ``to_dict``; unknown keys of later versions are left out."""
        known = {field.name for field in fields(cls)}
        plain = {k: float(v) if isinstance(v, str) else v for k, v in values.items() if k in known and k != "corrected"}
        table = values.get("corrected")
        return cls(**plain, corrected=None if table is None else pd.DataFrame(**table))


def _nats(value: float, error: float) -> str:
    if math.isinf(error):
        return f"at least {value:.3g} nats"
    return f"{value:.3g} +- {error:.1g} nats"


def draw_distilled(density: Density, seed: int, *, count: int = CHAINS * DRAWS, start: Draws | None = None) -> Draws:
    """Draws of the distilled posterior for certificates: importance-corrected Laplace where that is good, else HMC.

    Args:
        density: The distilled posterior.
        seed: Seed.
        count: Number of draws.
        start: Draws of a posterior close by, to start and whiten the chains from.
    """
    generator = torch.Generator().manual_seed(seed)
    gaussian = fit(density, seed=seed) if start is None else fit(density, start=start.flat.mean(0))
    if gaussian is not None:
        values = gaussian.draw(count, generator)
        log_weight = density.log_joint(values) - gaussian.log_prob(values)
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


def estimate(log_ratio: Tensor, draws: Draws, scale: float) -> dict[str, float]:
    """Estimates and standard errors of all functionals.

    Args:
        log_ratio: Delta at the draws, nats, ``(chains * draws,)``.
        draws: The draws, with their importance weights if any.
        scale: Size of the log-likelihoods that Delta is the difference of, nats; differences below its rounding are 0.

    Returns:
        The numeric fields of a Certificate.
    """
    chains = len(draws.values)
    ok = torch.isfinite(log_ratio)
    ratio = torch.where(ok, log_ratio, torch.nan_to_num(log_ratio[ok]).amin() - 1e3 if bool(ok.any()) else -1e3)
    if float(ratio.max() - ratio.min()) <= ROUNDING * scale:
        ratio = torch.zeros_like(ratio)
    # Constants cancel everywhere; taken out first they cost no digits.
    ratio = ratio - ratio.mean()
    base = torch.zeros_like(ratio) if draws.log_weight is None else draws.log_weight.flatten()
    base = base - base.logsumexp(0)
    weight = base.exp() * len(base)
    mean = (base.exp() * ratio).sum()
    evidence = (base + ratio).logsumexp(0)
    tilt = (ratio - evidence).exp()
    forward = float(forward_kl(ratio, base))
    half = float(half_variance(ratio, base))
    # Influence of a draw on each estimate; weights times influence average to zero.
    influence = {
        "kl_reverse": tilt - 1 - (ratio - mean),
        "kl_forward": tilt * (ratio - evidence - 1 - forward) + 1,
        "half_variance": 0.5 * (ratio - mean) ** 2 - half,
    }
    # Weights that all lie within a percent of each other have no tail that could matter, whatever its fitted shape.
    shape, shape_error = khat(base + ratio) if float(ratio.max() - ratio.min()) > 0.01 else (-math.inf, 0.0)
    errors = {name: _standard_error(weight * value, chains) for name, value in influence.items()}
    if not shape < KHAT_LIMIT:
        errors["kl_forward"] = math.inf
        if not math.isinf(shape) or shape > 0:
            errors["kl_reverse"] = max(errors["kl_reverse"], abs(float(evidence - mean)))
    corrected = (base + ratio - evidence).exp()
    ess = float(1 / (corrected**2).sum())
    spread = _standard_error((corrected * len(base)) ** 2, chains) / len(base)
    return {
        "kl_reverse": float(reverse_kl(ratio, base)),
        "kl_reverse_se": errors["kl_reverse"],
        "kl_forward": forward,
        "kl_forward_se": errors["kl_forward"],
        "half_variance": half,
        "half_variance_se": errors["half_variance"],
        "khat": shape,
        "khat_se": shape_error,
        "ess": ess,
        "ess_se": ess**2 * spread,
        "draws": len(ratio),
    }


def _standard_error(terms: Tensor, chains: int) -> float:
    """Standard error of a mean from the spread of the chains' means (one draw a chain: independent draws)."""
    means = terms.reshape(chains, -1).mean(1)
    return float(means.std() / math.sqrt(chains)) if chains > 1 else math.inf


def correct(names: list[str], constrained: Tensor, log_weight: Tensor, log_ratio: Tensor) -> pd.DataFrame:
    """Means and sds of every parameter under the distilled posterior and corrected to the full one.

    Args:
        names: Parameter names, one a column of ``constrained``.
        constrained: Draws in the model's units, ``(S, K)``.
        log_weight: Importance log weights of the draws, ``(S,)``.
        log_ratio: Delta, nats, ``(S,)``.
    """
    table = {}
    for prefix, logits in (("", log_weight + log_ratio), ("distilled_", log_weight)):
        weight = torch.softmax(logits, 0)[:, None]
        mean = (weight * constrained).sum(0)
        table[f"{prefix}mean"] = mean.tolist()
        table[f"{prefix}sd"] = (weight * (constrained - mean) ** 2).sum(0).sqrt().tolist()
    return pd.DataFrame(table, index=names)


def uncovered_mode(joint: Density, thinned: Density, draws: Tensor, index: Tensor, seed: int, starts: int = 6) -> bool:
    """Whether a few optimisations of the full posterior find a mode that the distilled draws do not cover.

    Args:
        joint: The full posterior.
        thinned: The same on few rows with weights: the scattered searches run there, only their ends on all rows.
        draws: Draws of the distilled posterior in the coordinates ``index`` of ``joint``, ``(S, P)``.
        index: Where the student's latents stand in the joint vector.
        seed: Seed of the starting points.
        starts: Number of searches.
    """
    centre = draws.mean(0)
    points = _wide(thinned, starts, seed)
    home_start = points[0].clone()
    home_start[index] = centre
    home = newton(joint, climb(joint, home_start, 100))
    near = joint.dim + 6 * math.sqrt(2 * joint.dim)
    for point in points:
        found = climb(thinned, point)
        if home is not None and _distance(home, found[None]) < near:
            continue
        mode = newton(joint, climb(joint, found, 100))
        if mode is None or (home is not None and _distance(home, mode.mean[None]) < near):
            continue
        if home is None or mode.log_mass > home.log_mass - 3.0:
            covered = _covers(mode, draws, index)
            if covered < 0.01:
                return True
    return False


def _wide(density: Density, count: int, seed: int) -> Tensor:
    """Scattered starting points with a finite log joint: prior draws and uniform ones in turn, ``(count, P)``."""
    generator = torch.Generator().manual_seed(seed)
    found = [scattered(density, 1, seed)[0]]
    for attempt in range(4 * count):
        point = 4 * torch.rand(density.dim, generator=generator, dtype=torch.float64).to(density.device) - 2
        if attempt % 2:
            for part in density.parts:
                point[part.index] = part.task.prior_draws(1, seed + attempt)[0].to(density.device)
        if bool(torch.isfinite(density.log_joint(point[None]))):
            found.append(point)
        if len(found) > count:
            break
    return torch.stack(found[-count:])


def _distance(gaussian: Gaussian, points: Tensor) -> float:
    white = torch.linalg.solve_triangular(gaussian.factor, (points - gaussian.mean).T, upper=False)
    return float((white**2).sum())


def _covers(mode: Gaussian, draws: Tensor, index: Tensor) -> float:
    """Share of draws that lie in a mode's bulk."""
    covariance = mode.factor @ mode.factor.T
    factor = torch.linalg.cholesky(covariance[index[:, None], index])
    white = torch.linalg.solve_triangular(factor, (draws - mode.mean[index]).T, upper=False)
    dim = len(index)
    return float(((white**2).sum(0) < dim + 6 * math.sqrt(2 * dim)).double().mean())


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
    draws = draw_distilled(distilled, seed, start=start)
    flat = draws.flat
    full = target.log_likelihood(flat)
    ratio = full - distilled.sweep(flat)
    found = estimate(ratio, draws, float(full[torch.isfinite(full)].abs().max()))
    log_weight = torch.zeros_like(ratio) if draws.log_weight is None else draws.log_weight.flatten()
    values = target.student.constrain(flat)
    names, columns = [], []
    for name, value in values.items():
        width = value.reshape(len(flat), -1).shape[1]
        shape = value.shape[1:]
        places = (
            [()]
            if not shape
            else [
                tuple(int(i) for i in p)
                for p in torch.cartesian_prod(*(torch.arange(s) for s in shape)).reshape(width, -1)
            ]
        )
        names += [name + (f"[{','.join(map(str, place))}]" if place else "") for place in places]
        columns.append(value.reshape(len(flat), -1))
    table = correct(names, torch.cat(columns, 1), log_weight, torch.nan_to_num(ratio, nan=-torch.inf))
    exact = torch.softmax(log_weight, 0)[:, None]
    centred = flat[
        torch.multinomial(
            exact[:, 0].cpu(), min(1000, len(flat)), replacement=True, generator=torch.Generator().manual_seed(seed)
        ).to(flat.device)
    ]
    missed = uncovered_mode(target.joint, target.thinned(), centred, target.index, seed)
    return Certificate(
        **found,  # type: ignore[arg-type]
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
    tolerance: float = 0.05,
    device: str = "auto",
) -> Certificate:
    """Says in nats how far a distilled posterior is from the full one, from fresh draws and one sweep of the full data.

    Args:
        target: The task, or several whose log-likelihoods add.
        distilled: The distilled set.
        seed: Seed of the draws.
        student: The task that the distilled rows belong to; default the target itself.
        tolerance: KL in nats that counts as certified.
        device: ``auto``, ``cpu`` or ``cuda``.

    Returns:
        The certificate; nothing warns, ask ``.ok``.

    Raises:
        ValueError: The set does not belong to the task.
    """
    tasks = [target] if isinstance(target, Task) else list(target)
    learner = checks.learner(tasks, student)
    distilled.check(learner)
    where = resolve(device)
    goal = Target(tasks, learner, where, seed)
    return certificate_of(goal, density_of(learner, distilled, where), tolerance, seed)
