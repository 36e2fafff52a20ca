"""The certificate of predictions, in the terms of the outcome or in predictive sds; of parameters it says nothing."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from bayesdd.data.accuracy import WORST, Accuracy, Residual
from bayesdd.data.wording import html, plain, refused
from bayesdd.numerics import words


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
            return refused(self.reasons)
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
        return html(self.verdict, self.numbers, ok=self.ok)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able: infinities and NaN as strings."""
        return {"certifies": "predictions"} | {name: plain(value) for name, value in asdict(self).items()}
