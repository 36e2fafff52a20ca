"""Table and figures of the study of physics-informed networks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
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


def table(teachers: Mapping[Any, Any], cells: Mapping[Any, Any], *, smoke: bool = False) -> pd.DataFrame:
    """A row for each family, size and method; targets and what needs no size once a family."""
    rows = []
    for family in dict.fromkeys(key[0] for key in cells):
        for name, label in (("target", "target"), ("free", "target, free of boundary")):
            found = [cell[name] for key, cell in teachers.items() if key[0] == family]
            rows.append({"family": family, "M": "", "method": label, **_target(found)})
        here = {key: cell["methods"] for key, cell in cells.items() if key[0] == family}
        first = [cell for key, cell in here.items() if key[2] == min(k[2] for k in here)]
        rows.append({"family": family, "M": "all", **_row("no physics", first)})
        rows.append({"family": family, "M": "all", "method": "ensemble, no physics", **_ensemble(first)})
        for size in sorted({key[2] for key in here}):
            some = [cell for key, cell in here.items() if key[2] == size]
            found = {method: _row(method, some) for method in some[0] if method != "no physics"}
            if not smoke and (family, size) in CLAIMED:
                found["distilled"]["met"] = _met(family, size, some)
            rows += [{"family": family, "M": size, **row} for row in found.values()]
    return pd.DataFrame(rows).drop(columns=[] if any("met" in row for row in rows) else ["met"], errors="ignore")


def _pooled(method: str, cells: list[Any], key: str) -> np.ndarray:
    return np.concatenate([cell[method][key] for cell in cells])


def _row(method: str, cells: list[Any]) -> dict[str, Any]:
    row: dict[str, Any] = {"method": method}
    for place in ("out", "in"):
        low, middle, high = np.quantile(_pooled(method, cells, f"error_{place}"), [0.25, 0.5, 0.75])
        row[f"error {place}"] = f"{middle:.3g} ({low:.2g} - {high:.2g})"
    row["coverage out"] = f"{_pooled(method, cells, 'coverage_out').mean():.2f}"
    row["width out"] = f"{_pooled(method, cells, 'width_out').mean():.2g}"
    row["residual"] = f"{np.median(_pooled(method, cells, 'residual')):.2g}"
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
    error = np.median(_pooled("distilled", cells, "error_out"))
    covered = _pooled("distilled", cells, "coverage_out").mean()
    below = all(error < np.median(_pooled(rival, cells, "error_out")) for rival in RIVALS)
    gain = size != 50 or np.median(_pooled("no physics", cells, "error_out")) >= GAIN * error
    claims = {
        "error": error <= CLAIMED[family, size],
        "rivals": below,
        "no physics": gain,
        "coverage": COVERAGE[0] <= covered <= COVERAGE[1],
    }
    return ", ".join(f"no: {name}" for name, holds in claims.items() if not holds) or "yes"


def markdown(found: pd.DataFrame) -> str:
    """The table."""

    def line(values: Any) -> str:
        shown = ["yes" if v is True else "**no**" if v is False else "" if v is None or v != v else v for v in values]
        return "| " + " | ".join(map(str, shown)) + " |"

    head = [line(found.columns), "|" + "---|" * len(found.columns)]
    return "\n".join([*head, *(line(row) for row in found.itertuples(index=False))]) + "\n"


def figure(teachers: Mapping[Any, Any], cells: Mapping[Any, Any], path: Path) -> None:
    """Left: measurements and distilled rows over alpha; middle: solutions and bands; right: error against M."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    import torch

    from bayesdd.networks import students
    from bayesdd.networks.regression import Regression
    from bayesdd.pinn import equation
    from studies.pinn_ood import parts as parts

    family = next(iter(cells))[0]
    size = max((key[2] for key in cells if key[0] == family and key[2] <= 50), default=min(key[2] for key in cells))
    where, learner = parts.FAMILIES[family], parts.student(parts.FAMILIES[family], 0, smoke=False)
    rows = {
        k: torch.tensor(v, dtype=torch.float64)
        for k, v in cells[family, 0, size]["methods"]["distilled"]["rows"].items()
    }
    weight = rows.pop("weight")
    plots, axes = plt.subplots(1, 3, figsize=(15, 4.2), layout="constrained")
    axes[0].scatter(learner.data["x"][:, 0], learner.data["alpha"], s=8, color="0.6", label="measurements")
    axes[0].scatter(
        rows["x"][:, 0], rows["alpha"], s=300 * weight / weight.sum() * size / 10, color="C3", label=f"{size} rows"
    )
    axes[0].set(xlabel="x", ylabel="alpha", title=family)
    axes[0].legend()
    regression = Regression(learner, "the figure")
    fits = students.from_scratch(regression, rows, weight / regression.noise**2, 1, 10_007, 400)
    low, high = where.alpha or (0.0, 1.0)
    for at, share in enumerate((0.1, 0.25, 0.4)):
        grid = equation.grid(where, torch.tensor([low + share * (high - low)], dtype=torch.float64), 81)
        with torch.no_grad():
            mean, sd = students.spread(regression, fits.latents, rows, weight / regression.noise**2, parts.inputs(grid))
        if grid["x"].shape[1] > 1:
            break
        x, m, s = grid["x"][:, 0], mean[0], parts.Z90 * sd[0]
        axes[1].plot(x, grid["y"], "k--", lw=1)
        axes[1].plot(x, m, color=f"C{at}", label=f"alpha = {float(grid['alpha'][0]):.2g}")
        axes[1].fill_between(x, m - s, m + s, color=f"C{at}", alpha=0.25, lw=0)
    axes[1].set(xlabel="x", ylabel="u", title="never measured: student, 90% band; dashed: truth")
    axes[1].legend()
    sizes = sorted({key[2] for key in cells if key[0] == family})
    for method in cells[family, 0, size]["methods"]:
        pooled = [
            _pooled(method, [c["methods"] for k, c in cells.items() if k[0] == family and k[2] == m], "error_out")
            for m in sizes
        ]
        quartiles = np.array([np.quantile(one, [0.25, 0.5, 0.75]) for one in pooled])
        (drawn,) = axes[2].plot(sizes, quartiles[:, 1], "o-", lw=3 if method == "distilled" else 1, label=method)
        axes[2].fill_between(sizes, quartiles[:, 0], quartiles[:, 2], color=drawn.get_color(), alpha=0.15, lw=0)
    floor = np.median([one["target"]["out"]["error"] for key, one in teachers.items() if key[0] == family])
    axes[2].axhline(floor, color="k", ls=":", label="target")
    axes[2].set(xscale="log", yscale="log", xlabel="rows M", ylabel="relative L2 error out of distribution")
    axes[2].legend(fontsize=7)
    plots.savefig(path, dpi=110)
    plt.close(plots)
