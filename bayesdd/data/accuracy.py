"""How accurate predictions are in the outcome's own terms, and how accurate they were asked to be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

WORST = 2.0  # times the tolerance: the worst tenth of a normal error lies beyond 1.6 times its root mean square
LEVEL, Z90 = 0.9, 1.6448536269514722  # of all intervals here, and their half width in sds


@dataclass(frozen=True)
class Accuracy:
    """Errors and intervals of students in the outcome's own terms, and what was asked of them.

    Attributes:
        error: Error of the students' predictive means, root mean square over students and inputs; a share of the
            outcome's range, or in its units.
        error_se: Its standard error.
        worst_error: Error of means, root mean square over students, that one input in ten exceeds.
        too_wide: Students' predictive sd less the target's, mean over students, that one input in ten exceeds.
        held: Share of the target's predictive inside the students' 90 % intervals, mean over inputs and students.
        held_se: Its standard error.
        held_narrow: The same at the third of the inputs where students' sds are narrowest beside the target's.
        of_range: Whether errors and widths are shares of the range of the target's means over the purpose; else they
            are in the outcome's units.
        asked: What ``error`` must stay within, with two standard errors, and ``worst_error`` and ``too_wide`` within
            twice; None: nothing was asked.
        asked_held: How far from 90 % ``held`` may be, with two standard errors; ``held_narrow`` at most twice below.
    """

    error: float
    error_se: float
    worst_error: float
    too_wide: float
    held: float
    held_se: float
    held_narrow: float
    of_range: bool = True
    asked: float | None = None
    asked_held: float = 0.05

    @property
    def reasons(self) -> list[str]:
        """Why it is not what was asked, one line each; empty if it is, or if nothing was asked."""
        if self.asked is None:
            return []
        found, limit, twice = [], self.said(self.asked), self.said(WORST * self.asked)
        if not self.error + 2 * self.error_se <= self.asked:
            found.append(f"predictive means are off by {self._with_se()}, more than {limit}")
        if not self.worst_error <= WORST * self.asked:
            found.append(f"at one input in ten means are off by {self.said(self.worst_error)}, more than {twice}")
        if not self.too_wide <= WORST * self.asked:
            found.append(f"at one input in ten sds are too wide by {self.said(self.too_wide)}, more than {twice}")
        if not abs(self.held - LEVEL) + 2 * self.held_se <= self.asked_held:
            found.append(
                f"90% intervals hold {self.held:.1%} +- {self.held_se:.1%} of the target's predictive, not 90 +- "
                f"{100 * self.asked_held:g} %"
            )
        least = LEVEL - WORST * self.asked_held
        if not self.held_narrow >= least:
            found.append(f"where 90% intervals are narrowest they hold {self.held_narrow:.1%}, less than {least:.0%}")
        return found

    @property
    def numbers(self) -> dict[str, str]:
        """The same in words."""
        return {
            "error in own terms": f"{self._with_se()}; {self.said(self.worst_error)} and more at one input in ten",
            "target's predictive held": f"{self.held:.1%} +- {self.held_se:.1%} by 90% intervals; "
            f"{self.held_narrow:.1%} where they are narrowest",
            "sds too wide": f"by {self.said(self.too_wide)} and more at one input in ten",
        }

    def said(self, value: float) -> str:
        """An error in words."""
        return f"{value:.2%} of the range" if self.of_range else f"{value:.3g}"

    def _with_se(self) -> str:
        return (
            f"{self.error:.2%} +- {self.error_se:.1%} of the range"
            if self.of_range
            else f"{self.error:.3g} +- {self.error_se:.1g}"
        )


@dataclass(frozen=True)
class Residual:
    """What is left of an equation or a condition that predictions should satisfy, root mean square at new points.

    Attributes:
        name: Of the equation or condition.
        students: Left by students, as a share of what constant predictions leave.
        target: The same of the target.
        off: Of a condition on the outcome itself: how far students are off there, in the terms of ``Accuracy``. The
            truth is known there, whatever the target says. None of others.
    """

    name: str
    students: float
    target: float
    off: float | None = None


def accuracy_from(values: Mapping[str, Any]) -> Accuracy:
    """The inverse of ``asdict``, with NaN and infinities as strings."""
    return Accuracy(**{name: _number(value) for name, value in values.items()})


def residual_from(values: Mapping[str, Any]) -> Residual:
    """The same of a residual."""
    return Residual(**{name: value if name == "name" else _number(value) for name, value in values.items()})


def _number(value: Any) -> Any:
    return float(value) if isinstance(value, str) else value
