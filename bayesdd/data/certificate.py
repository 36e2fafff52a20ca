"""Certificates: how far the rows of a distilled set are from the full data, with standard errors.

A ``Certificate`` is of a posterior, in nats; a ``PredictiveCertificate`` is of predictions, in predictive sds.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from html import escape
from typing import Any

import pandas as pd

from bayesdd.data.accuracy import WORST, Accuracy, Residual, accuracy_from, residual_from
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
            return _refused(self.reasons)
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
        return _html(self.verdict, self.numbers, ok=self.ok)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able: infinities and NaN as strings, the table by columns."""
        return {"certifies": "posterior"} | {name: _plain(value) for name, value in asdict(self).items()}


@dataclass(frozen=True)
class PredictiveCertificate:
    """How far the predictions of students of the rows are from the target's; of the parameters it says nothing.

    It is judged in the outcome's own terms where these were asked for (``accuracy.asked``), else in predictive sds.

    Attributes:
        mean_error: Error of the students' predictive means, root mean square, in the target's predictive sds.
        spread_ratio: Predictive sd of the students over the target's, geometric mean.
        draws: Students, each fitted from scratch.
        tolerance: What the error and the absolute log ratios must stay within, each with two standard errors, and the
            worst decile of both within twice; ``accuracy.asked`` where that was asked for.
        spread_off: Factor by which spreads differ at an input, either way: exp of the root mean square log ratio over
            inputs; NaN in files of earlier versions.
        worst_error: Error of means, root mean square over students, that one input in ten exceeds, in sds; NaN there.
        worst_spread: Factor by which spreads differ, either way, that one input in ten exceeds; NaN there.
        accuracy: The same in the outcome's own terms; None in files of earlier versions.
        residuals: What students leave of equations and conditions, where the objective knows any.
        doubt: What speaks against the target itself, one line; empty if nothing.
    """

    mean_error: float
    mean_error_se: float
    spread_ratio: float
    spread_ratio_se: float
    draws: int
    tolerance: float
    spread_off: float = math.nan
    worst_error: float = math.nan
    worst_spread: float = math.nan
    accuracy: Accuracy | None = None
    residuals: tuple[Residual, ...] = ()
    doubt: str = ""

    @property
    def ok(self) -> bool:
        """Errors and spreads within what was asked, at every input as over all, and no doubt about the target."""
        return not self.reasons

    @property
    def limit(self) -> str:
        """The tolerance in words."""
        if self.own_terms and self.accuracy is not None:
            return self.accuracy.said(self.tolerance)
        return f"{self.tolerance:g} predictive sds"

    @property
    def own_terms(self) -> bool:
        """Whether it is judged in the outcome's own terms."""
        return self.accuracy is not None and self.accuracy.asked is not None

    @property
    def reasons(self) -> list[str]:
        """Why it is not ok, one line each; empty if it is."""
        found = self._in_own_terms() if self.own_terms else self._in_sds()
        return found + ([f"the target itself is in doubt: {self.doubt}"] if self.doubt else [])

    def _in_own_terms(self) -> list[str]:
        accuracy = self.accuracy
        assert accuracy is not None and accuracy.asked is not None  # what own_terms says
        limit = WORST * accuracy.asked
        return accuracy.reasons + [
            f"at {one.name}, where the truth is known, students are off by {accuracy.said(one.off)}, more than "
            f"{accuracy.said(limit)}"
            for one in self.residuals
            if one.off is not None and not one.off <= limit
        ]

    def _in_sds(self) -> list[str]:
        error, ratio, limit, found = self.mean_error, self.spread_ratio, self.tolerance, []
        if not error + 2 * self.mean_error_se <= limit:
            found.append(
                f"predictive means are off by {error:.3g} +- {self.mean_error_se:.1g} sds, more than {limit:g}"
            )
        if not abs(math.log(ratio)) + 2 * self.spread_ratio_se / ratio <= limit:
            found.append(
                f"spreads are {ratio:.3g} +- {self.spread_ratio_se:.1g} times the target's, "
                f"not within {math.exp(-limit):.2g} to {math.exp(limit):.2g}"
            )
        if math.log(self.spread_off) - 2 * self.spread_ratio_se / ratio > limit:
            found.append(
                f"spreads differ {self.spread_off:.3g} times from input to input, more than {math.exp(limit):.2g}"
            )
        elif math.log(self.worst_spread) - 2 * self.spread_ratio_se / ratio > WORST * limit:
            found.append(
                f"at one input in ten spreads differ {self.worst_spread:.3g} times, more than "
                f"{math.exp(WORST * limit):.2g}"
            )
        if self.worst_error > WORST * limit:
            found.append(
                f"at one input in ten means are off by {self.worst_error:.3g} sds, more than {WORST * limit:g}"
            )
        return found

    @property
    def verdict(self) -> str:
        """The verdict in one sentence."""
        if self.reasons:
            return _refused(self.reasons)
        said = "certified: students of these rows predict what all the data predict"
        if self.own_terms and self.accuracy is not None:
            said = (
                f"certified: students of these rows predict what the target predicts within "
                f"{self.limit}, and their 90% intervals hold {self.accuracy.held:.0%} of it"
            )
        return f"{said}; of the parameters nothing is said"

    @property
    def numbers(self) -> dict[str, str]:
        """What stands behind the verdict, in words."""
        found = {
            "error of predictive means": f"{self.mean_error:.3g} +- {self.mean_error_se:.1g} predictive sds",
            "worst tenth of inputs": f"off by {self.worst_error:.3g} predictive sds and more",
            "ratio of spreads": f"{self.spread_ratio:.3g} +- {self.spread_ratio_se:.1g}",
            "spreads by input": f"{self.spread_off:.3g} times apart, either way; one in ten {self.worst_spread:.3g}",
        }
        if self.accuracy is not None:
            found = self.accuracy.numbers | found if self.own_terms else found | self.accuracy.numbers
        for one in self.residuals:
            off = "" if one.off is None or self.accuracy is None else f"; off by {self.accuracy.said(one.off)}"
            found[f"left of {one.name}"] = (
                f"{one.students:.2%} of what constants leave (the target {one.target:.2%}){off}"
            )
        return found | {"students": f"{self.draws}, each fitted from scratch"}

    def __str__(self) -> str:
        """The verdict and its numbers."""
        return words.text(self.verdict, self.numbers)

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        return _html(self.verdict, self.numbers, ok=self.ok)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able: infinities and NaN as strings."""
        return {"certifies": "predictions"} | {name: _plain(value) for name, value in asdict(self).items()}


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


def _refused(reasons: list[str]) -> str:
    return "NOT certified: " + "; ".join(reasons)


def _html(verdict: str, numbers: dict[str, str], *, ok: bool) -> str:
    head, _, rest = verdict.partition(": ")
    colour = "#00695c" if ok else "#b71c1c"
    return f'<p><b style="color: {colour}">{escape(head)}</b>: {escape(rest)}</p>{words.rows(numbers)}'


def _nats(value: float, error: float, other: float = 0.0) -> str:
    """A divergence in words; a lower bound that is far below the other divergence tells nothing and is left out."""
    if math.isinf(error):
        return f"at least {value:.3g} nats" if value > TELLING * other else UNTOLD
    return f"{value:.3g} +- {error:.1g} nats"


def _plain(value: Any) -> Any:
    if isinstance(value, pd.DataFrame):
        return value.to_dict("split")
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(one) for one in value]
    return repr(value) if isinstance(value, float) and not math.isfinite(value) else value
