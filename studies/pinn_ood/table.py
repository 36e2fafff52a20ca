"""The table of the study of physics-informed networks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

CLAIMED = {("reaction-diffusion", 20): 0.10, ("reaction-diffusion", 50): 0.035, ("reaction-diffusion", 100): 0.02}
RIVALS = ("labelled random", "labelled Sobol")
GAIN = 20.0  # over no physics, claimed at M = 50
COVERAGE = (0.80, 0.97)
LEGEND = [
    "error: relative L2 error of students trained from scratch (10 initialisations of each set of measurements), "
    "median and quartiles; in: alpha in the tail that was measured, out: in the other one. coverage and width: of 90% "
    "intervals of the solution (linearised Laplace of each student), mean. residual: root mean square of the equation "
    "at the test points in the lower tail, median.",
    "target: the physics-informed network itself (best of four modes, linearised Laplace); free of boundary: the same "
    "without the boundary values. no physics: a network on all measurements; ensemble: mean and spread of ten of them.",
    "labelled rows: the target's predictive mean at random inputs, at a Sobol sequence, where a linearised student is "
    "least certain (greedy), and at inputs optimised for their error; all with one common weight, scaled for intervals "
    "that hold 90%, as far as a weight can do that.",
    "mean error (sds) and spread ratio: of the certificate, over the purpose's inputs, against the target's own.",
]


def summary(teachers: Mapping[Any, Any], measured: Mapping[Any, Any], *, smoke: bool = False) -> pd.DataFrame:
    """A row for each family, size and method; targets and what needs no size once a family."""
    rows = []
    for family in dict.fromkeys(key[0] for key in measured):
        for name, label in (("target", "target"), ("free", "target, free of boundary")):
            found = [cell[name] for key, cell in teachers.items() if key[0] == family]
            rows.append({"family": family, "M": "", "method": label, **_target(found)})
        here = {key: cell["methods"] for key, cell in measured.items() if key[0] == family}
        first = [cell for key, cell in here.items() if key[2] == min(k[2] for k in here)]
        rows.append({"family": family, "M": "all", **_row("no physics", first)})
        rows.append({"family": family, "M": "all", "method": "ensemble, no physics", **_ensemble(first)})
        for size in sorted({key[2] for key in here}):
            some = [cell for key, cell in here.items() if key[2] == size]
            by_method = {method: _row(method, some) for method in some[0] if method != "no physics"}
            if not smoke and (family, size) in CLAIMED:
                by_method["distilled"]["met"] = _met(family, size, some)
            rows += [{"family": family, "M": size, **row} for row in by_method.values()]
    return pd.DataFrame(rows).drop(columns=[] if any("met" in row for row in rows) else ["met"], errors="ignore")


def pooled(method: str, cells: list[Any], key: str) -> np.ndarray:
    """One measure of a method's students, all cells together."""
    return np.concatenate([cell[method][key] for cell in cells])


def _row(method: str, cells: list[Any]) -> dict[str, Any]:
    row: dict[str, Any] = {"method": method}
    for place in ("out", "in"):
        low, middle, high = np.quantile(pooled(method, cells, f"error_{place}"), [0.25, 0.5, 0.75])
        row[f"error {place}"] = f"{middle:.3g} ({low:.2g} - {high:.2g})"
    row["coverage out"] = f"{pooled(method, cells, 'coverage_out').mean():.2f}"
    row["width out"] = f"{pooled(method, cells, 'width_out').mean():.2g}"
    row["residual"] = f"{np.median(pooled(method, cells, 'residual')):.2g}"
    if "mean_error" in cells[0][method]:
        row["mean error (sds)"] = f"{np.median([cell[method]['mean_error'] for cell in cells]):.2g}"
        row["spread ratio"] = f"{np.median([cell[method]['spread_ratio'] for cell in cells]):.2g}"
        row["seconds"] = f"{np.median([cell[method]['seconds'] for cell in cells]):.0f}"
    return row


def _target(found: list[Any]) -> dict[str, Any]:
    def middle(place: str, key: str) -> float:
        return float(np.median([one[place][key] for one in found]))

    return {
        "error out": f"{middle('out', 'error'):.3g}",
        "error in": f"{middle('in', 'error'):.3g}",
        "coverage out": f"{middle('out', 'coverage'):.2f}",
        "width out": f"{middle('out', 'width'):.2g}",
        "residual": f"{np.median([one['residual'] for one in found]):.2g}",
    }


def _ensemble(cells: list[Any]) -> dict[str, Any]:
    found = [{**cell["no physics"]["ensemble"], "residual": np.nan} for cell in cells]
    return _target(found) | {"residual": ""}


def _met(family: str, size: int, cells: list[Any]) -> str:
    """yes, or which claims do not hold."""
    error = np.median(pooled("distilled", cells, "error_out"))
    covered = pooled("distilled", cells, "coverage_out").mean()
    below = all(error < np.median(pooled(rival, cells, "error_out")) for rival in RIVALS)
    gain = size != 50 or np.median(pooled("no physics", cells, "error_out")) >= GAIN * error
    claims = {
        "error": error <= CLAIMED[family, size],
        "rivals": below,
        "no physics": gain,
        "coverage": COVERAGE[0] <= covered <= COVERAGE[1],
    }
    return ", ".join(f"no: {name}" for name, holds in claims.items() if not holds) or "yes"
