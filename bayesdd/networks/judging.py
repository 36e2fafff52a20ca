"""How predictions are judged: students from scratch against the target, over all inputs and input by input."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from bayesdd.data.accuracy import Accuracy, Residual
from bayesdd.data.columns import Columns
from bayesdd.data.predictive import PredictiveCertificate
from bayesdd.networks import students
from bayesdd.networks.calibration import inside
from bayesdd.networks.purpose import Purpose
from bayesdd.networks.regression import Regression
from bayesdd.numerics import arguments
from bayesdd.numerics.refusal import Refusal

JUDGES, JUDGE_STEPS = 8, 400  # students of a certificate, all from scratch
HELD = 0.05  # how far from 90 % the share of the target's predictive may be that intervals hold
MOST_HELD = 0.1  # from there on intervals of any width would do

Residuals = Callable[[Tensor, Tensor], tuple[Residual, ...]]


@dataclass(frozen=True, eq=False)
class Terms:
    """In which terms predictions are judged.

    Attributes:
        error: What errors of means must stay within; None: the tolerance in predictive sds judges.
        held: How far from 90 % the held share of the target's predictive may be.
        unit: What errors are measured in: None: the range of the target's means over the purpose; a number (1.0: the
            outcome's own units); or a range for each purpose row ``(K,)``, where several fields are rows of one column.
        residuals: Students' latents ``(S, P)`` and the unit -> what they leave of equations and conditions.
        doubt: What speaks against the target itself.

    Raises:
        Refusal: A number is out of bounds (one line).
    """

    error: float | None = None
    held: float = HELD
    unit: float | Tensor | None = None
    residuals: Residuals | None = None
    doubt: str = ""

    def __post_init__(self) -> None:
        if self.error is not None and arguments.positive(self.error, "function_space: error=") >= 1 and self.of_range:
            raise Refusal(
                f"function_space: error={self.error:g} is a share of the outcome's range, below 1 (0.01 for 1 %): with "
                "unit=1.0 it is in the outcome's own units."
            )
        if arguments.positive(self.held, "function_space: held=") >= MOST_HELD:
            raise Refusal(
                f"function_space: held={self.held:g} asks that 90% intervals hold 90 +- {100 * self.held:g} % of the "
                f"target's predictive, which intervals of any width may do: give less than {MOST_HELD:g}, such as 0.05."
            )
        if self.unit is not None and not isinstance(self.unit, Tensor):
            arguments.positive(self.unit, "function_space: unit=")

    @property
    def of_range(self) -> bool:
        """Whether errors are shares of a range, not in the outcome's units."""
        return self.unit is None or isinstance(self.unit, Tensor)


def certificate(
    regression: Regression,
    purpose: Purpose,
    rows: Columns,
    weight: Tensor,
    tolerance: float,
    seed: int,
    terms: Terms | None = None,
) -> PredictiveCertificate:
    """Students from scratch against the target's predictive: errors of means, spreads, and what intervals hold.

    All over the inputs together and input by input: spreads four times too wide here and too narrow there have the
    ratio one. Standard errors are those of the students and of the target's draws.
    """
    terms = terms or Terms()
    precision = weight / regression.noise**2
    fits = students.from_scratch(regression, rows, precision, JUDGES, seed, JUDGE_STEPS)
    with torch.no_grad():
        mean, spread = students.spread(regression, fits.latents, rows, precision, purpose.inputs)
    off, each = ((mean - purpose.mean) / purpose.sd).square(), (spread / purpose.sd).log()
    error, ratio = off.mean(1).sqrt(), each.mean(1)
    few = 1 / math.sqrt(purpose.draws)
    value = float(ratio.mean().exp())
    apart = each.mean(0).abs()
    unit = torch.as_tensor(purpose.mean.max() - purpose.mean.min() if terms.unit is None else terms.unit).double()
    if unit.shape not in ((), purpose.mean.shape) or not bool((unit.isfinite() & (unit > 0)).all()):
        raise Refusal(
            f"function_space: errors need a positive unit, one for all or for each of the {len(purpose.mean)} purpose "
            f"rows, got shape {tuple(unit.shape)}, least {float(unit.min()):.3g}."
        )
    return PredictiveCertificate(
        mean_error=float(error.square().mean().sqrt()),
        mean_error_se=math.hypot(_standard_error(error), few),
        spread_ratio=value,
        spread_ratio_se=value * math.hypot(_standard_error(ratio), few / math.sqrt(2)),
        draws=JUDGES,
        tolerance=tolerance if terms.error is None else terms.error,
        spread_off=float(apart.square().mean().sqrt().exp()),
        worst_error=float(off.mean(0).sqrt().quantile(0.9)),
        worst_spread=float(apart.quantile(0.9).exp()),
        accuracy=_accuracy(mean - purpose.mean, spread, purpose, unit, terms),
        residuals=() if terms.residuals is None else terms.residuals(fits.latents, unit),
        doubt=terms.doubt,
    )


def _accuracy(off: Tensor, spread: Tensor, purpose: Purpose, unit: Tensor, terms: Terms) -> Accuracy:
    """From errors and spreads of S students at K inputs, ``(S, K)``."""
    own, few = off / unit, 1 / math.sqrt(purpose.draws)
    error, held = own.square().mean(1).sqrt(), inside(off, spread, purpose.sd)
    narrow = (spread / purpose.sd).log().mean(0).argsort()[: max(1, len(purpose.mean) // 3)]
    return Accuracy(
        error=float(error.square().mean().sqrt()),
        # The target's own mean is known to a share of its sds.
        error_se=math.hypot(_standard_error(error), few * float((purpose.sd / unit).square().mean().sqrt())),
        worst_error=float(own.square().mean(0).sqrt().quantile(0.9)),
        too_wide=float(((spread - purpose.sd) / unit).mean(0).quantile(0.9)),
        held=float(held.mean()),
        held_se=math.hypot(_standard_error(held.mean(1)), few / 3),  # of a share of 0.9 among so many draws: 0.3 few
        held_narrow=float(held[:, narrow].mean()),
        of_range=terms.of_range,
        asked=terms.error,
        asked_held=terms.held,
    )


def _standard_error(by_student: Tensor) -> float:
    return float(by_student.std()) / math.sqrt(len(by_student))
