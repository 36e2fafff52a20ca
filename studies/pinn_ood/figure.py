"""The figure of the study of physics-informed networks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bayesdd.networks import students
from bayesdd.networks.regression import Regression
from bayesdd.pinn import equation
from studies.pinn_ood import parts
from studies.pinn_ood.table import pooled
from studies.shared import figures


def draw(teachers: Mapping[Any, Any], measured: Mapping[Any, Any], path: Path) -> None:
    """Left: measurements and distilled rows over alpha; middle: solutions and bands; right: error against M."""
    family = next(iter(measured))[0]
    size = max(
        (key[2] for key in measured if key[0] == family and key[2] <= 50), default=min(key[2] for key in measured)
    )
    where, learner = parts.FAMILIES[family], parts.student(parts.FAMILIES[family], 0, smoke=False)
    rows = {
        k: torch.tensor(v, dtype=torch.float64)
        for k, v in measured[family, 0, size]["methods"]["distilled"]["rows"].items()
    }
    weight = rows.pop("weight")
    plots, axes = figures.subplots(1, 3, (15, 4.2))
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
    sizes = sorted({key[2] for key in measured if key[0] == family})
    for method in measured[family, 0, size]["methods"]:
        errors = [
            pooled(method, [c["methods"] for k, c in measured.items() if k[0] == family and k[2] == m], "error_out")
            for m in sizes
        ]
        quartiles = np.array([np.quantile(one, [0.25, 0.5, 0.75]) for one in errors])
        (drawn,) = axes[2].plot(sizes, quartiles[:, 1], "o-", lw=3 if method == "distilled" else 1, label=method)
        axes[2].fill_between(sizes, quartiles[:, 0], quartiles[:, 2], color=drawn.get_color(), alpha=0.15, lw=0)
    floor = np.median([one["target"]["out"]["error"] for key, one in teachers.items() if key[0] == family])
    axes[2].axhline(floor, color="k", ls=":", label="target")
    axes[2].set(xscale="log", yscale="log", xlabel="rows M", ylabel="relative L2 error out of distribution")
    axes[2].legend(fontsize=7)
    figures.write(plots, path)
