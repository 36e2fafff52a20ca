"""The certificate of a posterior, in nats, with standard errors; that of predictions is in ``predictive.py``."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from typing import Any

import pandas as pd

from bayesdd.data.accuracy import accuracy_from, residual_from
from bayesdd.data.predictive import PredictiveCertificate as PredictiveCertificate  # the other sort, by this name too
from bayesdd.data.wording import html, plain, refused
from bayesdd.numerics import words
from bayesdd.numerics.pareto import KHAT_LIMIT

CONSTANT = 1e-9  # share of the mean: what varies less is a constant, such as the corner of a Cholesky factor
UNTOLD = "cannot be told from these draws"
TELLING = 1e-3  # of the other divergence: a lower bound below that says nothing
TOLERANCE = 0.05  # nats: the KL between two normal posteriors whose means differ by 0.3 sds


class CertificateWarning(UserWarning):
    """A distilled set was returned, but it is not certified to stand for the full data."""


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
        better_mode: In files of earlier versions: whether a mode was found that the distilled draws do not cover.
        doubt: What independent draws and searches speak against it, one line; empty if nothing.
        modes: Distinct modes of the full posterior that searches found; mirrored ones count once.
        searches: Searches for modes, of both posteriors.
        particles: Draws of the distilled posterior, and of the full one or of few of its rows, from starts as wide as
            the prior; 0 with more than 64 latents and for models that run draw by draw.
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
    doubt: str = ""
    modes: int = 0
    searches: int = 0
    particles: int = 0
    corrected: pd.DataFrame | None = None
    sweeps_se: float = 0.0

    @property
    def ok(self) -> bool:
        """Both KLs plus two standard errors within the tolerance, k-hat below 0.7, and no doubt."""
        return not self.reasons

    @property
    def limit(self) -> str:
        """The tolerance in words."""
        return f"{self.tolerance:g} nats"

    @property
    def reasons(self) -> list[str]:
        """Why it is not ok, one line each; empty if it is."""
        found = []
        for name in ("kl_reverse", "kl_forward"):
            value, error = getattr(self, name), getattr(self, f"{name}_se")
            if not value + 2 * error <= self.tolerance:
                said = _nats(value, error, self.kl_reverse)
                beyond = "" if said == UNTOLD else f" exceeds the tolerance of {self.tolerance:g} nats"
                found.append(f"{name} {said}{beyond}")
        if not self.khat < KHAT_LIMIT:
            found.append(f"k-hat {self.khat:.2f} is not below {KHAT_LIMIT}")
        if self.doubt:
            found.append(self.doubt)
        elif self.better_mode:
            found.append("the full posterior has a mode that the distilled posterior does not cover")
        return found

    @property
    def verdict(self) -> str:
        """The verdict in one sentence."""
        if self.reasons:
            return refused(self.reasons)
        table, apart = self.corrected, ""
        if table is not None:
            table = table[table["sd"] > CONSTANT * table["mean"].abs()]
        if table is not None and len(table):
            shift = ((table["mean"] - table["distilled_mean"]).abs() / table["sd"]).max()
            spread = (table["distilled_sd"] / table["sd"] - 1).abs().max()
            apart = f": no mean of a parameter differs by more than {shift:.1g} sds, no sd by more than {spread:.1%}"
        return f"certified: the posterior of these rows is that of all the data{apart}"

    @property
    def numbers(self) -> dict[str, str]:
        """What stands behind the verdict, in words."""
        even = math.isinf(self.khat) and self.khat < 0
        looked = f"{self.searches} searches for modes ({self.modes} found)" if self.searches else "not known"
        if self.particles:
            looked += f", {self.particles:,} draws from starts as wide as the prior"
        elif self.searches:
            looked += ", no draws from wide starts (too many latents, or a model that runs draw by draw)"
        return {
            "KL(distilled, full)": _nats(self.kl_reverse, self.kl_reverse_se),
            "KL(full, distilled)": _nats(self.kl_forward, self.kl_forward_se, self.kl_reverse),
            "half-variance": _nats(self.half_variance, self.half_variance_se),
            "importance weights": ("even" if even else f"k-hat {self.khat:.2f} (must be below {KHAT_LIMIT})")
            + f", {self.ess:.0f} effective draws of {self.draws}",
            "looked elsewhere": looked,
            "cost": f"{self.sweeps:.0f} sweeps of all rows, {self.gradients:.0f} with gradient",
        }

    def __str__(self) -> str:
        """The verdict and its numbers."""
        return words.text(self.verdict, self.numbers)

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        return html(self.verdict, self.numbers, ok=self.ok)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able: infinities and NaN as strings, the table by columns."""
        return {"certifies": "posterior"} | {name: plain(value) for name, value in asdict(self).items()}


def from_dict(values: dict[str, Any]) -> Certificate | PredictiveCertificate:
    """The inverse of either ``to_dict``; unknown keys of other versions are left out.

    Earlier files lack the key "certifies" and hold the fields of both sorts: ``mean_error`` is NaN in those of a
    posterior.
    """

    def read(name: str) -> Any:
        """A field; infinities and NaN were written as strings, a table by columns."""
        value = values[name]
        if name == "residuals":
            return tuple(residual_from(one) for one in value)
        if isinstance(value, dict):
            return accuracy_from(value) if name == "accuracy" else pd.DataFrame(**value)
        return float(value) if isinstance(value, str) and name != "doubt" else value

    unnamed = "posterior" if math.isnan(float(values.get("mean_error", math.nan))) else "predictions"
    sort = PredictiveCertificate if values.get("certifies", unnamed) == "predictions" else Certificate
    return sort(**{field.name: read(field.name) for field in fields(sort) if field.name in values})


def _nats(value: float, error: float, other: float = 0.0) -> str:
    """A divergence in words; a lower bound that is far below the other divergence tells nothing and is left out."""
    if math.isinf(error):
        return f"at least {value:.3g} nats" if value > TELLING * other else UNTOLD
    return f"{value:.3g} +- {error:.1g} nats"
