"""Several sources, none of which sees everything: does one small merged dataset beat clean, fully observed records?

Question: K hospitals hold short sequences of intersecting sets of variables, with measurement noise. One small table
with all variables is distilled from them. Does a dynamic Bayesian network learned from it predict clean test sequences
better than one learned from a clean, fully observed subsample of the same size (which no hospital has)?
Claim: with the edges given, yes, at every number of slices and every M from 5 to 20 in every seed, and at 50 on
average; M = 10 rows are within 0.03 nats of what all sources together know; the other bounds stand in the table of
claims.
How it could fail: complete rows cannot hold the dependence within families that no source observed together (their
posteriors are then too narrow, and predictions too sure); few rows cannot hold all regressions; a network learned from
weighted rows may have edges that only the weights suggest. Predictions are judged by the posterior predictive, the log
of the average likelihood over draws, and beside it at the posterior mean.
Cost: one to two hours on one thread, most of it in HMC for networks whose chains disagree. Each cell (kind, slices,
seed) is a process and a JSON file: an interrupted run continues where it stopped.

The setting follows Kungurtsev et al., "Dataset distillation from first principles", arXiv 2409.01410, case study 1: a
random network generates clean sequences, each source hides whole variables, Gaussian noise is added to every entry.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from bayesdd import Refusal
from studies.dbn_merge import claims, figure
from studies.dbn_merge.cell import KINDS, measure
from studies.dbn_merge.records import Settings
from studies.shared import cells, stamps, tables
from studies.shared.commands import named

SLICES = (2, 3, 5, 7, 10)
SMOKE = Settings(
    sizes=(2, 20),
    draws=160,
    sweeps=6,
    burn=14,
    states_rows=30,
    states_variables=4,
    steps=4,
    test=200,
    rounds=(1,),
    fallback=False,
)
REPLICATIONS = 40


class Cell(NamedTuple):
    """What one process measures."""

    kind: str
    slices: int
    seed: int

    @property
    def name(self) -> str:
        """File name."""
        return f"{self.kind}-{self.slices}-{self.seed}"


def main(
    *,
    smoke: bool = False,
    results: str | Path = cells.RESULTS,
    seeds: int = 5,
    only: str = "",
    coverage: bool = False,
    report: bool = False,
    threads: int = 1,
    jobs: int = 1,
    noise: float = Settings.noise,
    hidden: int = Settings.hidden,
    sources: int = Settings.sources,
    rows: int = Settings.rows,
) -> pd.DataFrame:
    """Measures what is not measured yet, prints claims and tables, writes ``results/dbn_merge.md`` and ``.png``.

    Where noise, hidden, sources or rows are not the defaults, the tables are printed, not written, and the cells lie in
    a folder of their own.

    Args:
        smoke: One small cell of the quick kinds, in this process; nothing is written.
        results: Folder of the table and the figure; the cells lie in ``dbn_merge/`` in it.
        seeds: Seeds a setting.
        only: Only the kinds of cells whose name contains this; the tables are then printed, not written.
        coverage: Measure the coverage of 90% intervals too, over 40 replications.
        report: Measure nothing: tables of the cells on disk, whatever source code measured them; the last line says
            which did.
        threads: Threads a process.
        jobs: Processes at a time.
        noise: Standard deviation of the linear-Gaussian sources' noise.
        hidden: Variables that each of them hides.
        sources: Their number.
        rows: Sequences of each.

    Returns:
        One row a claim: ``claim``, ``bound``, ``measured``, ``where``, ``met``; ``attrs`` holds ``records`` (all
        measurements, one a row) and ``notes``.
    """
    given: dict[str, Any] = {"noise": noise, "hidden": hidden, "sources": sources, "rows": rows}
    settings = {name: value for name, value in given.items() if value != getattr(Settings, name)}
    chosen = replace(SMOKE if smoke else Settings(), **settings)
    wanted = [cell for cell in _cells_of(seeds, coverage) if cell.kind in named(only, KINDS, "kind")]
    notes = _legend(chosen)
    if smoke:
        # The union's rounds of fresh draws take as long as all others together; large is the code of given.
        quick = [cell for cell in reversed(wanted) if cell.kind not in ("union", "large")]
        first = {cell.kind: cell._replace(slices=2) for cell in quick}
        measured = {cell: measure(*cell, chosen) for cell in first.values()}
    else:
        measured = _measured(wanted, Path(results), settings, report=report, threads=threads, jobs=jobs)
        lost = [f"{cell.name}: {found['error']}" for cell, found in measured.items() if "error" in found]
        notes += [f"not measured: {'; '.join(lost)}"] if lost else []
    records = pd.DataFrame(
        [
            {"kind": cell.kind, "T": cell.slices, "seed": cell.seed} | record
            for cell, found in measured.items()
            for record in found.get("records", [])
        ]
    )
    if not len(records):
        raise Refusal(f"no cell was measured: {'; '.join(notes[-1:])}")
    table = claims.checked(records)
    seeds_of = records.groupby("kind")["seed"].nunique()
    notes += ["Seeds: " + ", ".join(f"{kind} {count}" for kind, count in seeds_of.items()) + "."]
    seconds = sum(found.get("seconds", 0.0) for found in measured.values())
    where = stamps.machines(measured.values()) or stamps.machine(threads)
    by = sorted({found["stamp"]["source"] for found in measured.values() if "stamp" in found})
    notes += [f"{seconds / 60:.0f} minutes of processor time.", stamps.last_line(where, by)]
    table.attrs = {"records": records, "notes": notes}
    target = None if smoke or only or settings else Path(results) / "dbn_merge.md"
    tables.report(target, *_parts(table, records), notes=notes)
    if target is not None:
        figure.draw(records, target.with_suffix(".png"))
    return table


def _cells_of(seeds: int, coverage: bool) -> list[Cell]:
    """All cells, seed 0 of everything first."""
    found = []
    for seed in range(seeds):
        found += [Cell(kind, slices, seed) for kind in ("given", "learned") for slices in SLICES]
        found.append(Cell("categorical", 10, seed))
        if seed < 3:
            found += [Cell("first", slices, seed) for slices in (5, 10)]
            found.append(Cell("baselines", 5, seed))
            found += [Cell("large", slices, seed) for slices in (3, 5, 10)]
            found.append(Cell("union", 5, seed))
    return found + [Cell("coverage", 4, 100 + seed) for seed in range(REPLICATIONS if coverage else 0)]


def _measured(
    wanted: Sequence[Cell], results: Path, settings: dict[str, Any], *, report: bool, threads: int, jobs: int
) -> dict[Cell, dict[str, Any]]:
    tag = "".join(f"-{name}{value:g}" for name, value in sorted(settings.items()))
    folder = results / f"dbn_merge{tag}"
    if report:
        paths = {cell: folder / f"{cell.name}.json" for cell in wanted}
        return {cell: json.loads(path.read_text()) for cell, path in paths.items() if path.exists()}
    more = [f"{name}={value}" for name, value in settings.items()]
    commands = {cell.name: ["-m", "studies.dbn_merge", "--cell", *map(str, cell), *more] for cell in wanted}
    found = cells.run(commands, folder, "studies.dbn_merge.cell", threads=threads, jobs=jobs)
    return {cell: found[cell.name] for cell in wanted}


def _legend(settings: Settings) -> list[str]:
    s = settings
    return [
        "Nats a test sequence, log of the posterior predictive, mean over seeds (its standard error: every seed has a "
        "network of its own). Differences within a seed vary much less; claims compare within seeds.",
        f"Linear-Gaussian: {s.sources} sources of {s.rows} sequences, 6 variables, {s.hidden} hidden by each source, "
        f"noise sd {s.noise:g}; large: four times as many sequences. Categorical: 3 sources of {s.states_rows}, "
        f"{s.states_variables} variables of 3 states.",
        "all sources: posterior given all incomplete, noisy sources, the most that any distillation of them can know. "
        "complete clean set: the same sequences before anything was hidden. clean subsample: M of these. truth: the "
        "network that made the data.",
        "distilled: M complete weighted rows. Edges learned: by the BGe score (exact search) from each dataset; those "
        "of the distilled rows' own posterior come from the sources alone, by data augmentation.",
        "Variables of the first slice are independent, but for one table: there its regressions on a parent take three "
        "rows to have a slope and a residual, and two rows leave that part of the network to the prior.",
        "augmentation, noise ignored: data augmentation of all sources by a model that knows of no noise. "
        "perturbation: the paper's algorithm as far as it is published.",
    ]


def _parts(table: pd.DataFrame, records: pd.DataFrame) -> Iterator[str | pd.DataFrame]:
    yield "# Merging sources that see different variables"
    yield "## Claims"
    yield table
    titles = {
        ("given", "given"): "Linear-Gaussian, edges given, by number of slices",
        ("first", "given"): "Linear-Gaussian, edges given, in the first slice too",
        ("learned", "learned"): "Linear-Gaussian, edges learned from each dataset, by number of slices",
        ("large", "given"): "Sources four times as large",
        ("baselines", "given"): "Other methods, edges given",
        ("baselines", "learned"): "Other methods, edges learned",
        ("categorical", "given"): "Categorical, edges given",
    }
    for (kind, structure), title in titles.items():
        if bool(((records["kind"] == kind) & (records["structure"] == structure)).any()):
            yield f"## {title}"
            yield claims.means(records, kind, structure).reset_index()
    if (records["kind"] == "union").any():
        union = records[records["kind"] == "union"].groupby(["method", "M", "rounds"])[
            ["kl_reverse", "kl_reverse_se", "predictive"]
        ]
        yield "## Union of the sources' own sets"
        yield union.mean().round(3).reset_index()
    if "precision" in records and records["precision"].notna().any():
        edges = records[records["precision"].notna()].groupby(["kind", "method", "M"])[["precision", "recall"]].mean()
        yield "## Edges recovered, all slices and seeds"
        yield edges.round(2).reset_index()
