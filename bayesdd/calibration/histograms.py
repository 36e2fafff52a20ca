"""Histograms of ranks, with the band in which the bars of a calibrated posterior lie."""

from __future__ import annotations

from typing import Any

import pandas as pd

BARS = 10
ACROSS = 4  # panels side by side


def histograms(ranks: pd.DataFrame, draws: int, p_value: pd.Series, colour: str, band: str) -> Any:
    """One panel a parameter, and the band that holds 95 % of the bars of uniform ranks.

    Args:
        ranks: One row a replication, one column a parameter; 0 to ``draws``.
        draws: Posterior draws of a replication.
        p_value: Of uniformity, by parameter.
        colour: Of the bars.
        band: Colour of the band.

    Returns:
        The matplotlib figure.
    """
    from matplotlib import pyplot as plt
    from scipy.stats import binom

    count = len(ranks.columns)
    across = min(ACROSS, count)
    down = -(-count // across)
    figure, axes = plt.subplots(down, across, squeeze=False, figsize=(3 * across, 2.2 * down), layout="constrained")
    low, high = binom.ppf([0.025, 0.975], len(ranks), 1 / BARS)
    for axis in axes.flat[count:]:
        axis.remove()
    for axis, name in zip(axes.flat, ranks.columns, strict=False):
        axis.axhspan(low, high, color=band, lw=0)
        axis.hist(ranks[name], bins=BARS, range=(-0.5, draws + 0.5), color=colour, rwidth=0.9)
        axis.set_title(f"{name}  (p = {p_value[name]:.2g})", fontsize=9, parse_math=False)
        axis.set_yticks([])
        axis.set_xlabel("rank of the truth", fontsize=8)
    return figure
