"""Two posteriors laid over each other, parameter by parameter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from bayesdd.numerics.refusal import Refusal
from bayesdd.reports.comparison import compared, parameters
from bayesdd.reports.style import DISTILLED, FULL, density, panels, styled

MOST = 12  # panels: what a page shows at a glance


@styled
def plot_posteriors(
    full: Any, distilled: Any, *, names: Sequence[str] | None = None, most: int = MOST, across: int = 4
) -> Any:
    """Densities of both posteriors, the parameter that differs most first.

    Args:
        full: ArviZ inference data given all rows: ``bayesdd.sample(task)``.
        distilled: Inference data given the synthetic rows: ``bayesdd.sample(task, distilled)``.
        names: Parameters to show, ``w[0]`` or ``w[age]``, in this order; default those that differ most.
        most: Most parameters to show.
        across: Panels side by side.

    Returns:
        The matplotlib figure; a panel's title gives the shift of the mean in sds and the ratio of the sds.

    Raises:
        Refusal: No posterior, no parameter in common, or none of that name.
        MissingPackage: matplotlib is not installed.

    Example:
        >>> full = bayesdd.sample(task, draws=500, chains=2, seed=0)
        >>> bayesdd.plot_posteriors(full, idata).savefig("posteriors.svg")
    """
    table = compared(full, distilled, "plot_posteriors")
    if names is not None:
        if odd := [name for name in names if name not in table.index]:
            raise Refusal(f"plot_posteriors: no parameter {odd[0]!r}: both posteriors have {list(table.index)[:8]}")
        table = table.loc[list(names)]
    table = table.iloc[:most]
    pair = [parameters(idata, "plot_posteriors") for idata in (full, distilled)]
    figure, axes = panels(len(table), across=across)
    for axis, (name, row) in zip(axes, table.iterrows(), strict=True):
        (at, height), (at_distilled, height_distilled) = (density(draws[str(name)]) for draws in pair)
        axis.fill_between(at, height, color=FULL, alpha=0.25, lw=0, label="all rows")
        axis.plot(at, height, color=FULL, lw=1.2)
        axis.plot(at_distilled, height_distilled, color=DISTILLED, lw=1.6, ls=(0, (4, 1.5)), label="synthetic rows")
        said = f"{row['shift']:+.2f} sd, sd \N{MULTIPLICATION SIGN} {row['sd_ratio']:.2f}"
        axis.set_title(f"{name}\n{said if np.isfinite(row['sd_ratio']) else 'constant'}")
        axis.set_ylim(bottom=0)
        axis.set_yticks([])
        axis.spines["left"].set_visible(False)
        axis.locator_params(axis="x", nbins=4)
    axes[0].legend(loc="upper right", handlelength=1.2, borderaxespad=0, fontsize=7)
    return figure
