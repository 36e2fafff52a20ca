"""The pictures of README and pages, drawn from the committed tables in studies/results/.

Question: what do the tables say at a glance?
Claim: each picture fits in 150 kB and carries the hash of its table, so that a picture older than its table is found.
How it could fail: a table is written anew and its picture is not.
Cost: seconds.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from studies.shared import cells, commands, figures

FULL, DISTILLED, BASELINE, INK = "#1f4e79", "#d95f02", "#8c8c8c", "#333333"
LARGEST = 150_000  # bytes
LEAST = 1e-12  # nats: what tables print as "<1e-12"


def main(*, smoke: bool = False, results: str | Path = "docs/pictures") -> pd.DataFrame:
    """Draws every picture.

    Args:
        smoke: The same; it takes seconds anyway.
        results: Folder to write to.

    Returns:
        One row a picture: its table, its bytes, ``met`` whether they are few enough.
    """
    found = []
    for name, (table, draw) in PICTURES.items():
        path = Path(results) / f"{name}.svg"
        path.parent.mkdir(parents=True, exist_ok=True)
        figures.write(draw(tables_of(table)), path, Description=f"{table}.md {hash_of(table)}", Date=None)
        # Matplotlib ends lines with blanks.
        path.write_text(re.sub(r" +$", "", path.read_text(), flags=re.MULTILINE))
        size = path.stat().st_size
        found.append({"picture": name, "table": f"{table}.md", "bytes": size, "met": size <= LARGEST})
        print(f"wrote {path}: {size:,} bytes")
    return pd.DataFrame(found)


def hash_of(table: str) -> str:
    """SHA-256 of a committed table, its first twelve digits."""
    return hashlib.sha256((cells.RESULTS / f"{table}.md").read_bytes()).hexdigest()[:12]


def tables_of(name: str) -> dict[str, pd.DataFrame]:
    """Heading -> table of a committed page; a table without a heading by its number."""
    found: dict[str, pd.DataFrame] = {}
    heading, lines = "", []
    for line in [*(cells.RESULTS / f"{name}.md").read_text().splitlines(), ""]:
        if line.startswith("|"):
            lines.append([cell.strip() for cell in line.strip("|").split("|")])
        elif lines:
            found[heading or str(len(found))] = pd.DataFrame(lines[2:], columns=lines[0])
            lines = []
        if line.startswith("#"):
            heading = line.lstrip("# ")
    return found


def number(cell: str) -> float:
    """The first number of a cell; what is too small to print counts as the least that is."""
    match = re.search(r"-?\d[\d,]*\.?\d*(?:e[+-]?\d+)?", cell)
    if cell.startswith("<"):
        return LEAST
    return float(match[0].replace(",", "")) if match else float("nan")


def quickstart(tables: dict[str, pd.DataFrame]) -> Any:
    """Means and 95% intervals of ten coefficients under both posteriors."""
    (table,) = tables.values()
    figure, axis = figures.subplots(1, 1, (7, 3.6))
    place = np.arange(len(table))[::-1]
    for prefix, shift, colour, label in (
        ("full", 0.16, FULL, "20,190 rows"),
        ("distilled", -0.16, DISTILLED, "20 synthetic rows"),
    ):
        mean, sd = table[f"{prefix}_mean"].map(number), table[f"{prefix}_sd"].map(number)
        # The constant lies near 1, far from the rest: everything is shown as a difference from the full mean.
        centre = mean - table["full_mean"].map(number)
        axis.errorbar(centre, place + shift, xerr=1.96 * sd, fmt="o", color=colour, ms=4, lw=2, label=label)
    axis.set_yticks(place, table["coefficient"])
    axis.set_xlabel("coefficient, as difference from its mean given all rows; 95% intervals")
    axis.set_title("Twenty rows have the posterior of twenty thousand", loc="left", fontsize=11)
    return _finished(figure, axis, legend="outside upper right")


def accuracy(tables: dict[str, pd.DataFrame]) -> Any:
    """KL of every task, at the default tolerance and as close as the rows can come, and the best published code's."""
    (table,) = tables.values()
    figure, axis = figures.subplots(1, 1, (7, 4.8))
    columns = table["task"], table["P"], table["M"]
    names = [f"{task.removeprefix('posteriordb ')}, P = {p}, M = {m}" for task, p, m in zip(*columns, strict=True)]
    place = np.arange(len(table))[::-1]
    ours, published, closest = (
        table[name].map(lambda cell: number(cell) if cell else np.nan)
        for name in ("reverse KL", "best published code (Laplace KL)", "KL at 1e-8")
    )
    axis.hlines(place, closest.fillna(ours), published.fillna(ours), color=BASELINE, lw=1)
    axis.scatter(closest, place, facecolors="white", edgecolors=DISTILLED, zorder=3, label="with tolerance=1e-8")
    axis.scatter(ours, place, color=DISTILLED, zorder=3, label="bayesdd, median over seeds")
    axis.scatter(published, place, color=BASELINE, marker="s", zorder=3, label="best published code (Laplace KL)")
    axis.axvline(0.05, color=INK, lw=1, ls=":")
    axis.text(0.06, place[-2], "certified:\nleft of 0.05", ha="left", va="center", fontsize=8, color=INK)
    axis.set(xscale="log", xlabel="KL(distilled, full), nats: smaller is better", yticks=place)
    axis.set_yticklabels(names, fontsize=8)
    axis.set_title("How far the distilled posterior is from the full one", loc="left", fontsize=11)
    return _finished(figure, axis, legend="outside lower center")


def methods(tables: dict[str, pd.DataFrame]) -> Any:
    """KL of the best published method of each task, and of distill."""
    table = tables["Who wins"]
    figure, axis = figures.subplots(1, 1, (7, 4.2))
    place = np.arange(len(table))[::-1]
    ours, best = table["distill"].map(number), table["its KL"].map(number)
    axis.hlines(place, ours, best, color=BASELINE, lw=1)
    axis.scatter(best, place, color=BASELINE, marker="s", zorder=3, label="best published method")
    axis.scatter(ours, place, color=DISTILLED, zorder=3, label="distill")
    for y, value, name in zip(place, best, table["best published"], strict=True):
        axis.annotate(name, (value, y), (6, -3), textcoords="offset points", fontsize=7, color=INK)
    axis.set(xscale="log", xlabel="KL(distilled, full), nats: smaller is better", xlim=(None, 1e4))
    axis.set_yticks(place, [f"{task}, M = {m}" for task, m in zip(table["task"], table["M"], strict=True)], fontsize=8)
    axis.set_title("The nearest of fifteen published methods, and distill", loc="left", fontsize=11)
    return _finished(figure, axis, legend="outside upper right")


def dbn_size(tables: dict[str, pd.DataFrame]) -> Any:
    """Held-out log-likelihood against the number of rows, five slices."""
    table = tables["Linear-Gaussian, edges given, by number of slices"]
    figure, axis = figures.subplots(1, 1, (6, 3.4))
    for method, colour, label in (
        ("distilled", DISTILLED, "distilled from four incomplete, noisy sources"),
        ("clean subsample", BASELINE, "as many clean and complete sequences"),
    ):
        mine = table[table["method"] == method]
        axis.plot(mine["M"].map(number), mine["5"].map(number), "o-", color=colour, label=label)
    ceiling = number(table.set_index("method")["5"]["all sources"])
    axis.axhline(ceiling, color=FULL, ls="--", lw=1.5, label="all 400 sequences of the sources")
    axis.set(xscale="log", xlabel="rows", ylabel="nats a test sequence", ylim=(-40, -24))
    axis.set_title("Two rows predict like four sources (T = 5)", loc="left", fontsize=11)
    return _finished(figure, axis, legend="lower right")


def dbn_slices(tables: dict[str, pd.DataFrame]) -> Any:
    """What five rows lose against all sources, by number of slices."""
    table = tables["Linear-Gaussian, edges given, by number of slices"]
    slices = [column for column in table if column.isdigit()]
    ceiling = table.set_index("method").loc["all sources", slices].map(number)
    figure, axis = figures.subplots(1, 1, (6, 3.4))
    for method, colour, label in (
        ("distilled", DISTILLED, "5 distilled rows"),
        ("clean subsample", BASELINE, "5 clean sequences"),
    ):
        mine = table[(table["method"] == method) & (table["M"] == "5")].iloc[0][slices].map(number)
        axis.plot([int(t) for t in slices], mine - ceiling, "o-", color=colour, label=label)
    axis.axhline(0, color=FULL, ls="--", lw=1.5, label="all 400 sequences of the sources")
    axis.set(xlabel="slices T", ylabel="nats a test sequence,\nrelative to all sources", ylim=(-6, 1))
    axis.set_title("At every length", loc="left", fontsize=11)
    return _finished(figure, axis, legend="lower right")


def pinn_error(tables: dict[str, pd.DataFrame]) -> Any:
    """Relative L2 error of plain networks, in and out of distribution."""
    (table,) = tables.values()
    table = table[table["family"] == "reaction-diffusion"]
    figure, axes = figures.subplots(1, 2, (8, 3.6), sharey=True)
    for axis, column, title in (
        (axes[0], "error in", "boundary values that were measured"),
        (axes[1], "error out", "boundary values never measured"),
    ):
        for method, colour, marker, label in (
            ("distilled", DISTILLED, "o", "distilled rows"),
            ("labelled Sobol", BASELINE, "s", "labelled, Sobol inputs"),
            ("random subset", BASELINE, "^", "random measurements"),
        ):
            mine = table[table["method"] == method]
            axis.plot(mine["M"].map(number), mine[column].map(number), f"{marker}-", color=colour, label=label)
        known = table.set_index("method")[column]
        axis.axhline(number(known["target"]), color=FULL, ls="--", lw=1.5, label="the network that knows the equation")
        axis.axhline(number(known["no physics"]), color=INK, ls=":", lw=1.5, label="all 200 measurements")
        axis.set(xscale="log", yscale="log", xlabel="rows")
        axis.set_title(title, loc="left", fontsize=10)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("relative L2 error of plain networks")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False, fontsize=8)
    return figure


def hospitals(tables: dict[str, pd.DataFrame]) -> Any:
    """Held-out log-likelihood of patients of a trial against the number of rows."""
    table = tables["Held-out patients"]
    column = table.columns[-1]
    figure, axis = figures.subplots(1, 1, (6, 3.4))
    for method, colour, label in (
        ("distilled", DISTILLED, "rows distilled from four hospitals"),
        ("patients measured in full", BASELINE, "as many patients measured in full"),
    ):
        mine = table[table["method"] == method]
        axis.plot(mine["M"].map(number), mine[column].map(number), "o-", color=colour, label=label)
    ceiling = number(table.set_index("method")[column]["all hospitals"])
    axis.axhline(ceiling, color=FULL, ls="--", lw=1.5, label="all patients of the hospitals")
    sizes = [number(size) for size in table[table["method"] == "distilled"]["M"]]
    axis.set(xscale="log", xlabel="rows", ylabel="nats a held-out patient")
    axis.set_xticks(sizes, [f"{size:.0f}" for size in sizes], minor=False)
    axis.set_xticks([], minor=True)
    axis.set_title("Five rows predict like four hospitals", loc="left", fontsize=11)
    return _finished(figure, axis, legend="lower right")


def equations(tables: dict[str, pd.DataFrame]) -> Any:
    """Error and coverage of surrogates of eight equations, where the boundary was measured and beyond."""
    (table,) = tables.values()
    figure, axes = figures.subplots(1, 2, (8, 3.8), sharey=True)
    place = np.arange(len(table))[::-1]
    for axis, column in ((axes[0], "error"), (axes[1], "held")):
        for where, colour, shift, label in (
            ("in", FULL, 0.12, "boundary values that were measured"),
            ("out", DISTILLED, -0.12, "boundary values never measured"),
        ):
            axis.plot(table[f"{column} {where}"].map(number), place + shift, "o", color=colour, label=label)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set(xscale="log", xlabel="relative L2 error of the mean")
    axes[1].axvspan(0.85, 1.0, color=BASELINE, alpha=0.25, lw=0)
    axes[1].set(xlim=(0, 1.04), xlabel="truth in 90% intervals; grey: 85% and more")
    axes[0].set_yticks(place, table["problem"])
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False, fontsize=8)
    return figure


def contract(tables: dict[str, pd.DataFrame]) -> Any:
    """KL that the certificate says against the true one, of every model form that has both."""
    table = next(table for table in tables.values() if "KL said, reverse" in table)
    figure, axis = figures.subplots(1, 1, (5.2, 4.6))
    for way, colour, marker in (("reverse", DISTILLED, "o"), ("forward", FULL, "x")):
        pairs = table[[f"true, {way}", f"KL said, {way}"]]
        pairs = pairs[(pairs != "").all(axis=1)]
        true, said = (pairs[name].map(number).clip(lower=LEAST) for name in pairs)
        label = "KL(distilled, full)" if way == "reverse" else "KL(full, distilled)"
        axis.scatter(true, said, s=22, color=colour, marker=marker, lw=1, label=label)
    ends = [LEAST / 3, 3.0]
    axis.plot(ends, ends, color=BASELINE, lw=1, zorder=0)
    axis.axhline(0.05, color=INK, lw=1, ls=":")
    axis.text(ends[0] * 2, 0.06, "certified below 0.05", ha="left", va="bottom", fontsize=8, color=INK)
    axis.set(xscale="log", yscale="log", xlabel="true KL, nats", ylabel="KL that the certificate says, nats")
    axis.set_title(f"{len(table)} models, as people write them", loc="left", fontsize=11)
    return _finished(figure, axis, legend="outside lower center")


def trust(tables: dict[str, pd.DataFrame]) -> Any:
    """Share of intervals that hold the truth and of sound sets that are certified, by family of posteriors."""
    table = tables["Certificates against quadrature"]
    figure, axis = figures.subplots(1, 1, (6, 3.8))
    place = np.arange(len(table))[::-1]
    for column, shift, colour, marker, label in (
        ("hold", 0.12, FULL, "o", "intervals of two standard errors that hold the truth"),
        ("sound and ok", -0.12, DISTILLED, "s", "sound sets that are certified"),
    ):
        axis.plot(table[column].map(number), place + shift, marker, color=colour, label=label)
    axis.axvline(0.9, color=INK, lw=1, ls=":")
    far = int(table["ok though far"].map(number).sum())
    asked = int(table["asked too much"].map(number).sum())
    axis.set(xlim=(0.5, 1.02), xlabel="share of sets")
    axis.set_yticks(place, table["family"])
    title = f"Certified though too far: {far} of {asked} that were asked"
    axis.set_title(title, loc="left", fontsize=11)
    return _finished(figure, axis, legend="outside lower center")


def speed(tables: dict[str, pd.DataFrame]) -> Any:
    """Seconds from rows in memory to draws against the number of rows, ten columns."""
    (table,) = tables.values()
    table = table[table["d"] == "10"]
    figure, axis = figures.subplots(1, 1, (6, 3.6))
    for method, colour, style, label in (
        ("(a) distill + sample", DISTILLED, "o-", "distil to 30 rows, certify, 4 x 1,000 draws"),
        ("(b) NumPyro NUTS", FULL, "s-", "NUTS on all rows, 1 x 500 draws"),
        ("(e) Laplace, uncorrected", BASELINE, "^-", "Laplace fit, says not how far off"),
        ("(f) one sweep, 1,000 particles", BASELINE, "x:", "one pass over all rows at 1,000 draws"),
    ):
        mine = table[table["method"] == method]
        axis.plot(mine["N"].map(number), mine["seconds"].map(number), style, color=colour, label=label)
    axis.set(xscale="log", yscale="log", xlabel="rows N, ten columns", ylabel="seconds, one thread")
    axis.set_title("Above 100,000 rows distilling is cheaper than one chain", loc="left", fontsize=11)
    return _finished(figure, axis, legend="outside lower center")


def _finished(figure: Any, axis: Any, legend: str) -> Any:
    axis.spines[["top", "right"]].set_visible(False)
    if legend.startswith("outside"):
        figure.legend(loc=legend, ncols=3, frameon=False, fontsize=8)
    else:
        axis.legend(loc=legend, frameon=False, fontsize=8)
    return figure


PICTURES: dict[str, tuple[str, Callable[[dict[str, pd.DataFrame]], Any]]] = {
    "quickstart": ("quickstart", quickstart),
    "accuracy": ("glm_accuracy", accuracy),
    "methods": ("lens", methods),
    "dbn_size": ("dbn_merge", dbn_size),
    "dbn_slices": ("dbn_merge", dbn_slices),
    "hospitals": ("pbc_merge", hospitals),
    "equations": ("equations", equations),
    "pinn_error": ("pinn_ood", pinn_error),
    "contract": ("contract", contract),
    "trust": ("trust", trust),
    "speed": ("speed", speed),
}


if __name__ == "__main__":
    commands.run(main)
