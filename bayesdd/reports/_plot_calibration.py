"""Ranks of the truth, as ``bayesdd.calibrate`` found them."""

from __future__ import annotations

from typing import Any

from bayesdd.calibration import Calibration
from bayesdd.calibration.histograms import histograms
from bayesdd.numerics.refusal import WrongType
from bayesdd.reports.style import FAINT, FULL, styled


@styled
def plot_calibration(calibration: Calibration) -> Any:
    """Histograms of the ranks with the band in which 95 % of the bars of a calibrated posterior lie.

    Args:
        calibration: What ``bayesdd.calibrate`` returned.

    Raises:
        WrongType: Anything else.
        MissingPackage: matplotlib is not installed.

    Example:
        >>> bayesdd.plot_calibration(found).savefig("ranks.svg")  # found = bayesdd.calibrate(task)
    """
    if not isinstance(calibration, Calibration):
        raise WrongType(f"plot_calibration needs what bayesdd.calibrate returns, got {type(calibration).__name__}")
    return histograms(calibration.ranks, calibration.draws, calibration.p_value, FULL, FAINT)
