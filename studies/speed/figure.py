"""The speed study's figure."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from studies.shared import figures
from studies.speed.table import TITLES, slopes

# Okabe & Ito's colours, which those who cannot tell red from green can tell apart.
COLOURS = dict(zip(TITLES, ("#0072B2", "#D55E00", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#000000"), strict=True))


def draw(made: pd.DataFrame, path: Path) -> None:
    """Seconds against rows, a panel a number of covariates, with the fitted slopes."""
    dims, steep = sorted(set(made.d)), slopes(made)
    fig, axes = figures.subplots(1, len(dims), (6 * len(dims), 4.4), squeeze=False)
    for axis, dim in zip(axes.flat, dims, strict=True):
        for method, title in TITLES.items():
            group = made[(made.method == method) & (made.d == dim) & (made.error == "")].sort_values("N")
            slope = f", slope {steep[method, dim]:.2f}" if (method, dim) in steep else ""
            style = {"lw": 2.5 if method == "distilled" else 1.3, "ls": "--" if method == "bare_sweep" else "-"}
            axis.plot(group.N, group.seconds, marker="o", ms=4, color=COLOURS[method], label=title + slope, **style)
        axis.set(xscale="log", yscale="log", title=f"logistic regression, d = {dim}", xlabel="rows N", ylabel="seconds")
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(frameon=False, fontsize=8)
    figures.write(fig, path)
