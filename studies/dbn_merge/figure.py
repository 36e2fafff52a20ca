"""The figure of ``dbn_merge``: the paper's figures 2 to 4 drawn anew."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.lines import Line2D

from studies.shared import figures

OURS, SUBSAMPLE, PAPER, INK = "#0072B2", "#D55E00", "#009E73", "#444444"
LOST = 2.0  # nats below the complete clean set where the axis ends


def draw(records: pd.DataFrame, path: Path) -> None:
    """Draws nats below the complete clean set against M, along the optimisation, and against the number of slices.

    Bands are the range over seeds. The differences are within seeds, so that networks need not be alike.

    Args:
        records: As ``claims.checked`` takes them.
        path: File to write.
    """
    slices = sorted(records[records["kind"].isin(["given", "learned"])]["T"].unique())
    fig, axes = figures.subplots(3, max(2, len(slices)), (3.4 * max(2, len(slices)), 9))
    below = _below(records)
    for row, structure in zip(axes, ("given", "learned"), strict=False):
        for axis, t in zip(row, slices, strict=False):
            mine = below[(below["kind"] == structure) & (below["T"] == t)]
            _against_size(axis, mine, f"T = {t}, edges {structure}")
    rest = list(axes[2])
    _course(rest.pop(0), below)
    for size in (10, 50):
        if len(rest):
            _against_slices(rest.pop(0), below, size)
    if len(rest) and (below["kind"] == "categorical").any():
        _against_size(rest.pop(0), below[below["kind"] == "categorical"], "categorical, T = 10")
    for axis in rest:
        axis.set_visible(False)
    handles = [
        Line2D([], [], color=OURS, label="distilled"),
        Line2D([], [], color=SUBSAMPLE, label="clean subsample"),
        Line2D([], [], color=INK, ls="--", label="all sources"),
        Line2D([], [], color=PAPER, label="the paper's algorithm"),
    ]
    fig.legend(handles=handles, loc="outside lower center", ncols=4, frameon=False)
    fig.suptitle("Nats a test sequence, relative to the complete clean set; mean and range over seeds")
    figures.write(fig, path)


def _below(records: pd.DataFrame) -> pd.DataFrame:
    """Records with ``below``: nats above the complete clean set of the same cell."""
    clean = records[records["method"] == "complete clean set"]
    keys = ["kind", "T", "seed"]
    base = clean.drop_duplicates(keys).set_index(keys)["predictive"]
    index = pd.MultiIndex.from_frame(records[keys])
    return records.assign(below=records["predictive"].to_numpy() - base.reindex(index).to_numpy())


def _against_size(axis: Any, mine: pd.DataFrame, title: str) -> None:
    mine = mine[mine["step"].isna()] if "step" in mine else mine
    for method, colour in (("clean subsample", SUBSAMPLE), ("distilled", OURS)):
        _band(axis, mine[mine["method"] == method].groupby("M")["below"], colour)
    top = mine[mine["method"].str.startswith("all sources")]["below"]
    if len(top):
        axis.axhline(top.mean(), color=INK, ls="--", lw=1)
    axis.set(xscale="log", ylim=(-LOST, 0.2), title=title, xlabel="rows M")
    axis.set_title(title, fontsize=9)


def _course(axis: Any, below: pd.DataFrame) -> None:
    """Along the optimisations."""
    mine = below[(below["kind"] == "baselines") & (below["structure"] == "given")]
    if "step" in mine:
        for method, colour in (("perturbation", PAPER), ("distilled", OURS)):
            for size, style in ((10, "-"), (50, ":")):
                part = mine[(mine["method"] == method) & (mine["M"] == size) & mine["step"].notna()]
                _band(axis, part.groupby("step")["below"], colour, style)
    axis.set(xscale="log", ylim=(-12, 0.5), xlabel="steps of the optimisation")
    axis.set_title("T = 5, M = 10 (dotted 50)", fontsize=9)


def _against_slices(axis: Any, below: pd.DataFrame, size: int) -> None:
    mine = below[(below["kind"] == "given") & (below["M"] == size)]
    for method, colour in (("clean subsample", SUBSAMPLE), ("distilled", OURS)):
        _band(axis, mine[mine["method"] == method].groupby("T")["below"], colour)
    axis.set(ylim=(-LOST, 0.2), xlabel="slices T")
    axis.set_title(f"M = {size}, edges given", fontsize=9)


def _band(axis: Any, groups: Any, colour: str, style: str = "-") -> None:
    if not len(groups):
        return
    found = groups.agg(["mean", "min", "max"])
    x = found.index.to_numpy(float)
    axis.fill_between(x, found["min"], found["max"], color=colour, alpha=0.15, lw=0)
    axis.plot(x, found["mean"], color=colour, ls=style, marker=".", lw=1.4)
    axis.axhline(0.0, color=INK, lw=0.5)
    axis.grid(alpha=0.2)
    axis.set_ylabel(None)
