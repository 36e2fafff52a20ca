"""TODO."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from typing import Any

import pandas as pd

from bayesdd.numerics.pareto import KHAT_LIMIT


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
        mean_error: Of predictions (``networks.function_space``): error of the mean in predictive sds, root mean square.
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
        return reasons(self)

    def __str__(self) -> str:
        """The verdict and its numbers."""
        return text(self)

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


def reasons(certificate: Certificate) -> list[str]:
    """Why it is not ok, one line each; empty if it is."""
    if not math.isnan(certificate.mean_error):
        return _of_predictions(certificate)
    found = []
    for name in ("kl_reverse", "kl_forward"):
        value, error = getattr(certificate, name), getattr(certificate, f"{name}_se")
        if not value + 2 * error <= certificate.tolerance:
            found.append(f"{name} {_nats(value, error)} exceeds the tolerance of {certificate.tolerance:g} nats")
    if not certificate.khat < KHAT_LIMIT:
        found.append(f"k-hat {certificate.khat:.2f} is not below {KHAT_LIMIT}")
    if certificate.better_mode:
        found.append("the full posterior has a mode that the distilled posterior does not cover")
    return found


def text(certificate: Certificate) -> str:
    """The verdict and its numbers."""
    said = "certified" if certificate.ok else "NOT certified: " + "; ".join(certificate.reasons)
    if not math.isnan(certificate.mean_error):
        return f"{said}\n{_predictions(certificate)}"
    return (
        f"{said}\n"
        f"  KL(distilled, full) {_nats(certificate.kl_reverse, certificate.kl_reverse_se)}\n"
        f"  KL(full, distilled) {_nats(certificate.kl_forward, certificate.kl_forward_se)}\n"
        f"  half-variance       {_nats(certificate.half_variance, certificate.half_variance_se)}\n"
        f"  k-hat {certificate.khat:.2f}, effective draws {certificate.ess:.0f} of {certificate.draws}\n"
        f"  sweeps {certificate.sweeps:.0f}, gradient sweeps {certificate.gradients:.0f}"
    )


def _nats(value: float, error: float) -> str:
    if math.isinf(error):
        return f"at least {value:.3g} nats"
    return f"{value:.3g} +- {error:.1g} nats"


def _of_predictions(certificate: Certificate) -> list[str]:
    error, error_se = certificate.mean_error, certificate.mean_error_se
    ratio, ratio_se = certificate.spread_ratio, certificate.spread_ratio_se
    limit, found = certificate.tolerance, []
    if not error + 2 * error_se <= limit:
        found.append(f"predictive means are off by {error:.3g} +- {error_se:.1g} sds, more than {limit:g}")
    if not abs(math.log(ratio)) + 2 * ratio_se / ratio <= limit:
        low, high = math.exp(-limit), math.exp(limit)
        found.append(
            f"spreads are {ratio:.3g} +- {ratio_se:.1g} times the target's, not within {low:.2g} to {high:.2g}"
        )
    return found


def _predictions(certificate: Certificate) -> str:
    """The numbers."""
    return (
        f"  error of predictive means {certificate.mean_error:.3g} +- {certificate.mean_error_se:.1g} predictive sds\n"
        f"  ratio of spreads          {certificate.spread_ratio:.3g} +- {certificate.spread_ratio_se:.1g}\n"
        f"  {certificate.draws} students from scratch; nothing is said of the posterior of the parameters"
    )
