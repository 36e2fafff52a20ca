"""How long does the joint posterior of hospitals take, from a hundred rows each to a hundred thousand?

Question: what do the draws of ``bayesdd.dbn.pooled`` cost as rows, patterns of missing entries and variables grow, and
are they those of long chains of data augmentation?
Claim: three sources of 100, 10,000 and 100,000 sequences (six variables, five slices, two variables hidden from each)
take under 1, 5 and 60 seconds of processor time, 1,000 sequences with a pattern each under 30, fifty variables under
30, all in less than 2 GB; means of ten times as many draws, whose own error is small, are within 0.05 posterior
deviations of long chains', deviations within 5%.
How it could fail: importance sampling whose weights miss a tail agrees with itself and not with chains; a cost that
hides in the reading of rows; many parameters, for which chains remain.
Cost: about ten minutes on one thread, most of them for the long chains.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import torch

from bayesdd.dbn import Source, pooled
from bayesdd.dbn.inference import Pooled
from bayesdd.dbn.inference.augmentation import Augmentation, augmented
from bayesdd.dbn.inference.drawing import diagnostics
from bayesdd.dbn.inference.patterns import patterns_of
from studies.dbn_merge.cases import Problem, gaussian
from studies.shared import commands, stamps, tables
from studies.shared.cells import RESULTS, peak_memory

SOURCES, SLICES, NOISE = 3, 5, 0.3
MISSING = 0.3  # share of the entries, where every row has a pattern of its own
CHAINS, MORE = 8, 10
MEANS, DEVIATIONS, MEMORY = 0.05, 0.05, 2.0  # in deviations, relative, GB


class Case(NamedTuple):
    """A merge, the draws asked for, the seconds that are claimed, and the sweeps of long chains beside it, if any."""

    name: str
    make: Callable[[int], tuple[Problem, list[Source]]]
    rows: int
    draws: int
    seconds: float
    sweeps: int


def hidden(rows: int) -> tuple[Problem, list[Source]]:
    """Two of six variables hidden from each source: one pattern a source."""
    problem = gaussian(seed=0, slices=SLICES, rows=rows, sources=SOURCES, noise=NOISE)
    return problem, problem.sources


def unknown(rows: int) -> tuple[Problem, list[Source]]:
    """The same, and nobody knows how noisy each source is."""
    problem, sources = hidden(rows)
    return problem, [replace(some, noise=0.0, noise_site=f"noise_{k}") for k, some in enumerate(sources)]


def scattered(rows: int) -> tuple[Problem, list[Source]]:
    """Entries missing at random: a pattern a row."""
    problem = gaussian(seed=0, slices=SLICES, rows=rows, sources=SOURCES, noise=NOISE)
    generator = torch.Generator().manual_seed(1)
    x = problem.clean + NOISE * torch.randn(problem.clean.shape, generator=generator, dtype=torch.float64)
    x = x.masked_fill(torch.rand(x.shape, generator=generator) < MISSING, torch.nan)
    return problem, [Source({"x": some}, noise=NOISE) for some in x.split(rows)]


def wide(rows: int) -> tuple[Problem, list[Source]]:
    """Fifty variables, a third of them hidden from each source."""
    problem = gaussian(seed=0, slices=SLICES, rows=rows, sources=SOURCES, variables=50, hidden=16, noise=NOISE)
    return problem, problem.sources


CASES = (
    Case("2 of 6 variables hidden", hidden, 100, 4000, 1, 20_000),
    Case("2 of 6 variables hidden", hidden, 10_000, 4000, 5, 0),
    Case("2 of 6 variables hidden", hidden, 100_000, 4000, 60, 0),
    Case("the same, noise unknown", unknown, 100, 4000, 5, 60_000),
    Case("a pattern a row", scattered, 1000, 4000, 30, 0),
    Case("16 of 50 variables hidden", wide, 100, 1000, 30, 0),
)
SMOKE = (
    Case("2 of 6 variables hidden", hidden, 40, 1000, 60, 250),
    Case("a pattern a row", scattered, 40, 400, 60, 0),
)


def main(*, smoke: bool = False, results: str | Path = RESULTS) -> pd.DataFrame:
    """Draws every case, prints the table and writes it to ``results/pooling.md``.

    Args:
        smoke: Two small cases; nothing is written.
        results: Folder of the table.

    Returns:
        One row a case; ``met`` says whether its part of the claim holds.
    """
    with ProcessPoolExecutor(1, mp_context=get_context("spawn"), max_tasks_per_child=1) as fresh:  # memory of its own
        table = pd.DataFrame(list(fresh.map(_measured, SMOKE if smoke else CASES)))
    slack = 3 if smoke else 1  # short chains have an error of their own
    agrees = ~((table["means apart"] > slack * MEANS) | (table["sds apart"] > slack * DEVIATIONS))
    table["met"] = agrees & (table["seconds"] < table["claimed"]) & (table["GB"] < MEMORY)
    notes = [
        f"{SOURCES} sources, {SLICES} slices, noise sd {NOISE:g} on every entry. Seconds: processor time of "
        "`pooled`, imports aside. GB: largest memory of the case's own process with its imports. R-hat and ESS: of the "
        "parameter that has the worst, as `pooled` reports them.",
        f"Apart: largest difference, over parameters, between {MORE} times as many draws and {CHAINS} chains of data "
        "augmentation: of means in posterior deviations, of deviations relative. Both sides' own error is part of it; "
        "ESS of chains: of the parameter that has least.",
        stamps.last_line(stamps.machine(1), [] if smoke else [stamps.source_hash("studies.pooling")]),
    ]
    tables.report(
        None if smoke else Path(results) / "pooling.md", "# Pooled posteriors", table, notes=notes, floats=".3g"
    )
    return table


def _of(made: tuple[Problem, list[Source]]) -> tuple[Any, list[Source]]:
    return made[0].template, made[1]


def _measured(case: Case) -> dict[str, Any]:
    """One case; memory is that of the process, which has done nothing else."""
    torch.set_num_threads(1)
    template, sources = _of(case.make(case.rows))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # R-hat is in the table
        pooled(*_of(hidden(20)), draws=100)  # what is imported at the first call does not count
        begin = time.process_time()
        full = pooled(template, sources, draws=case.draws, seed=0)
        seconds, memory = time.process_time() - begin, peak_memory()
        apart = [float("nan")] * 3
        if case.sweeps:
            apart = _apart(pooled(template, sources, draws=MORE * case.draws, seed=1), case.sweeps)
    return {
        "case": case.name,
        "rows a source": case.rows,
        "parameters": sum(torch.Size(value.shape[1:]).numel() for value in full.draws.values()),
        "draws": case.draws,
        "claimed": case.seconds,
        "seconds": seconds,
        "R-hat": full.rhat,
        "ESS": full.ess,
        "means apart": apart[0],
        "sds apart": apart[1],
        "ESS of chains": apart[2],
        "GB": memory,
    }


def _apart(full: Pooled, sweeps: int) -> list[float]:
    """Largest differences of means and deviations from long chains, which start away from the mode; their least ESS."""
    patterns, generator = patterns_of(full.template, full.rows), torch.Generator().manual_seed(1)
    start = Augmentation(full.noisy, patterns, full.slices).starts(CHAINS, generator)
    settings: dict[str, Any] = {"draws": sweeps, "burn": 200, "thin": 1, "generator": generator}
    chains, _ = augmented(full.noisy, patterns, full.slices, start=start, **settings)
    means, deviations = [], []
    for site, value in chains.items():
        theirs, ours = value.flatten(0, 1), full.draws[site]
        means.append(((ours.mean(0) - theirs.mean(0)) / theirs.std(0)).abs().max())
        deviations.append((ours.std(0) / theirs.std(0) - 1).abs().max())
    return [float(torch.stack(means).max()), float(torch.stack(deviations).max()), diagnostics(chains)[1]]


if __name__ == "__main__":
    commands.run(main)
