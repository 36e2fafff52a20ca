r"""Rows on disk and rows shared by processes: what do time and memory do when the number of rows grows tenfold?

Question: logistic regression on netCDF files of 1e5, 1e6 and 1e7 rows (d = 10; d = 20 for memory, 1.7 GB in float64)
that stay on disk, M = 30, one thread: seconds and peak memory of ``Task`` and ``distill``; the same from Parquet, from
a DuckDB query, on two dask workers and on Spark with two threads, 1e6 rows of 10 and of 20 columns (Parquet of 1e7
and 1e8 rows too). And 1e6 rows shared by one and by two ranks, each: seconds of an exact sweep of 1,000 draws and of
``distill``, and their results.
Claim: log seconds against log N rise at most by 1.05; ten million rows take at most 1.5 GiB, imports included, and at
most 15% more than a million; two ranks come to the result of one to 1e-8, and sweep at least 1.6 times as fast;
all sources sum the same rows to 1e-12, and Parquet costs at most 1.5 times the processor seconds of netCDF; ten million
rows of Parquet take at most 15 s and 1 GiB, and a hundred million at most 15% more memory.
How it could fail: a reader whose buffers grow with the file; results that depend on which rank summed which rows; a
distillation that spends most of its time on other work than sums over rows, which ranks cannot speed up (its own ratio
is shown beside that of the sweep).
Cost: about twenty minutes. Each cell is a process and a JSON file: an interrupted run continues where it stopped.
Needs 10 GB on the disk of temporary files, and Java for Spark.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from studies.scale.cell import on_disk
from studies.shared import cells, stamps, tables
from studies.shared.commands import named

TIMED = ((100_000, 10), (1_000_000, 10), (10_000_000, 10))
WEIGHED = ((1_000_000, 20), (10_000_000, 20))
LARGE = (("parquet", 10_000_000, 10), ("parquet", 100_000_000, 10))
TABLES = (
    LARGE[0],
    *((kind, 1_000_000, dim) for dim in (10, 20) for kind in ("parquet", "duckdb", "dask", "spark")),
)
SHARED = (1_000_000, 10)
SLOPE, GIB, GROWTH, SAME, FASTER, SUMS, DEARER = 1.05, 1.5, 1.15, 1e-8, 1.6, 1e-12, 1.5
PARQUET_SECONDS, PARQUET_GIB = 15, 1.0


def main(*, smoke: bool = False, results: str | Path = cells.RESULTS, only: str = "") -> pd.DataFrame:
    """Measures what is not measured yet, prints the table and writes it to ``results/scale.md``.

    Args:
        smoke: 3,000 rows from disk, in this process; nothing is written.
        results: Folder of the table; the cells lie in ``scale/`` in it.
        only: Only cells whose name contains this; the table is then printed, not written.

    Returns:
        One row a cell; ``attrs["claims"]`` has one row a claim.
    """
    if smoke:
        return pd.DataFrame([{"N": 3000, "d": 3, "ranks": 1} | on_disk(3000, 3, size=6)])
    wanted = {f"netcdf-{n}-{d}": ("netcdf", n, d, 1) for n, d in (*TIMED, *WEIGHED)}
    wanted |= {f"{kind}-{n}-{d}": (kind, n, d, 1) for kind, n, d in (*TABLES, *LARGE)}
    wanted |= {f"ranks-{SHARED[0]}-{SHARED[1]}-{k}": ("ranks", *SHARED, k) for k in (1, 2)}
    chosen = {name: ["-m", "studies.scale", "--cell", *map(str, wanted[name])] for name in named(only, wanted, "cell")}
    module = "studies.scale.cell"
    found = cells.run(chosen, Path(results) / "scale", module, threads=1, jobs=1)
    table = pd.DataFrame(
        [dict(zip(("rows from", "N", "d", "ranks"), wanted[name], strict=True)) | cell for name, cell in found.items()]
    )
    columns = ["claim", "bound", "measured", "met"]  # of some of the cells nothing is claimed
    table.attrs["claims"] = pd.DataFrame(columns=columns) if only else _claims(table)
    tables.report(
        None if only else Path(results) / "scale.md",
        table.attrs["claims"],
        _shown(table),
        notes=[
            "seconds: from the path to the certified rows (with ranks, the start of the processes and writing the file "
            "too); processor: of this process and, with dask and Spark, of their processes; sweep: 1,000 draws over "
            "all rows in float64; peak: of the whole process, imports included; workers: the most that processes of "
            "dask and Spark held.",
            stamps.last_line(stamps.machine(1), [stamps.source_hash(module)]),
        ],
    )
    return table


def _claims(table: pd.DataFrame) -> pd.DataFrame:
    def at(column: str, rows: int, dim: int, ranks: int = 1, *, kind: str = "netcdf") -> Any:
        here = table[table.N.eq(rows) & table.d.eq(dim) & table.ranks.eq(ranks) & table["rows from"].eq(kind)]
        return here[column].iloc[0]

    made = []

    def claim(what: str, value: float, form: str, bound: str, *, met: bool) -> None:
        made.append({"claim": what, "bound": bound, "measured": format(value, form), "met": bool(met)})

    seconds = [at("seconds", *cell) for cell in TIMED]
    slope = float(np.polyfit(np.log([n for n, _ in TIMED]), np.log(seconds), 1)[0])
    claim("slope of log seconds against log N, from disk", slope, ".2f", f"at most {SLOPE}", met=slope <= SLOPE)
    small, large = (at("memory", *cell) for cell in WEIGHED)
    claim("peak GiB at 1e7 rows, d = 20", large, ".2f", f"at most {GIB}", met=large <= GIB)
    claim("peak at 1e7 over that at 1e6", large / small, ".2f", f"at most {GROWTH}", met=large / small <= GROWTH)
    one, two = (
        {key: at(key, *SHARED, ranks, kind="ranks") for key in ("sweep", "distill", "swept", "rows", "weight")}
        for ranks in (1, 2)
    )
    apart = max(_apart(one[key], two[key]) for key in ("swept", "weight"))
    apart = max(apart, *(_apart(one["rows"][name], two["rows"][name]) for name in one["rows"]))
    claim("two ranks against one, largest relative difference", apart, ".1e", f"at most {SAME:g}", met=apart <= SAME)
    times = one["sweep"] / two["sweep"]
    claim("exact sweep by two ranks, times as fast", times, ".2f", f"at least {FASTER}", met=times >= FASTER)
    times = one["distill"] / two["distill"]
    claim("distillation by two ranks, times as fast", times, ".2f", "shown", met=True)
    apart = max(_apart(at("swept", *cell), at("swept", *cell, kind=kind)) for kind, *cell in TABLES)
    claim("sums of all sources, largest relative difference", apart, ".1e", f"at most {SUMS:g}", met=apart <= SUMS)
    for rows, dim in [cell for kind, *cell in TABLES if kind == "parquet"]:
        times = at("processor", rows, dim, kind="parquet") / at("processor", rows, dim)
        what = f"processor seconds from Parquet over those from netCDF, {rows:,} rows of {dim} columns"
        claim(what, times, ".2f", f"at most {DEARER}", met=times <= DEARER)
    seconds = at("seconds", *LARGE[0][1:], kind="parquet")
    small, large = (at("memory", *cell, kind=kind) for kind, *cell in LARGE)
    what = "seconds, 1e7 rows of Parquet"
    claim(what, seconds, ".1f", f"at most {PARQUET_SECONDS}", met=seconds <= PARQUET_SECONDS)
    claim("peak GiB at 1e7 rows of Parquet", small, ".2f", f"at most {PARQUET_GIB}", met=small <= PARQUET_GIB)
    what = "peak at 1e8 rows of Parquet over that at 1e7"
    claim(what, large / small, ".2f", f"at most {GROWTH}", met=large / small <= GROWTH)
    return pd.DataFrame(made)


def _apart(one: Any, two: Any) -> float:
    a, b = np.asarray(one), np.asarray(two)
    return float(np.abs(a - b).max() / np.abs(a).max())


def _shown(table: pd.DataFrame) -> pd.DataFrame:
    """The measurements as they are printed."""
    forms = {
        "seconds": ("seconds", ".1f"),
        "processor": ("processor s", ".1f"),
        "distill": ("distill s", ".1f"),
        "sweep": ("sweep s", ".2f"),
        "memory": ("peak GiB", ".2f"),
        "workers": ("workers GiB", ".2f"),
        "sweeps": ("sweeps", ",.0f"),
        "gradients": ("gradients", ",.0f"),
        "kl": ("KL", ".1e"),
    }
    shown = table[["rows from", "N", "d", "ranks"]].copy()
    for key, (title, form) in forms.items():
        values = table[key] if key in table else [float("nan")] * len(table)
        shown[title] = ["" if pd.isna(value) else format(value, form) for value in values]
    return shown
