"""How far the distilled posterior was, round by round."""

from __future__ import annotations

import math
from typing import Any

from bayesdd.data.certificate import Certificate
from bayesdd.data.distilled import Distilled, needed
from bayesdd.numerics.refusal import Refusal
from bayesdd.reports.style import DISTILLED, FAINT, INK, logarithmic, panels, styled

LEAST = 1e-12  # nats: where the axis ends, since zero has no logarithm


@styled
def plot_rounds(distilled: Distilled) -> Any:
    """Half-variance of the log-ratio (or the objective), nats, after every start and round at the final size.

    Starts are judged on held-out draws of the full posterior, rounds on fresh draws of the distilled one.

    Args:
        distilled: What ``bayesdd.distill`` returned.

    Raises:
        Refusal: The set records no rounds: it was made by hand, by another objective, or by an earlier version.
        MissingPackage: matplotlib is not installed.

    Example:
        >>> bayesdd.plot_rounds(distilled).savefig("rounds.svg")
    """
    recorded = needed(distilled, "plot_rounds").provenance.get("rounds")
    if not recorded:
        raise Refusal("plot_rounds: this set records no rounds; what bayesdd.distill returns does: distil anew")
    rounds = [one for one in recorded if one["size"] == recorded[-1]["size"] and math.isfinite(one["nats"])]
    figure, (axis,) = panels(1, size=(3.8, 2.3))
    at, values = list(range(len(rounds))), [max(one["nats"], LEAST) for one in rounds]
    axis.plot(at, values, color=DISTILLED, lw=1.4, marker="o", ms=4)
    axis.set_yscale("log")
    logarithmic(axis.yaxis)
    axis.set_xticks(at, [one["stage"].replace(" ", "\n") for one in rounds])
    axis.set_ylabel(f"{rounds[-1]['what']}, nats" if rounds else "nats")
    axis.margins(y=0.15)
    if isinstance(distilled.certificate, Certificate):
        limit = distilled.certificate.tolerance
        axis.axhline(limit, color=FAINT, lw=1, zorder=0)
        axis.annotate(
            f"tolerance {limit:g}",
            (1, limit),
            (0, 2),
            axis.get_yaxis_transform(),
            textcoords="offset points",
            ha="right",
            va="bottom",
            fontsize=7.5,
            color=INK,
        )
    return figure
