"""Merged rows beside what a careful user would do instead, and how soon their optimisation gets there.

Question: four incomplete, noisy sources of a dynamic Bayesian network are merged to five rows. Do these predict clean
test sequences as well as all sources together, as well as the network that expectation maximisation fits to all of
them, and better than rows simulated from that network? How many steps does it take, and how far does the published
algorithm come in as many?
Claim: at every number of slices five rows are within 0.01 nats a sequence of all sources together, no worse than the
plug-in of expectation maximisation, and 3 nats above as many rows simulated from it, however these are weighted; thirty
steps do what three hundred of the published algorithm do not.
How it could fail: a posterior over regressions is wider than one network, and a plug-in may predict better where rows
are many; simulated rows may be luckier than the average over ten sets of them says.
Cost: about five minutes on one thread.

The setting is that of ``studies.dbn_merge``; the published algorithm is Kungurtsev et al., "Dataset distillation from
first principles", arXiv 2409.01410, case study 1, as far as it is published (``studies.dbn_merge.baselines``).
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from bayesdd.dbn import merge
from bayesdd.dbn.inference import Pooled, pooled
from bayesdd.dbn.inference.augmentation import Augmentation, expectation_maximised
from bayesdd.dbn.inference.marginal import Marginal
from bayesdd.dbn.inference.patterns import patterns_of
from bayesdd.dbn.likelihood.parameters import simulated as rows_from
from bayesdd.dbn.merging.complete import complete_rows
from bayesdd.dbn.template.structure import Values
from studies.dbn_merge import baselines
from studies.dbn_merge.records import Records, Settings, simulated
from studies.shared import commands, stamps
from studies.shared.cells import RESULTS
from studies.shared.tables import report

SLICES, SEEDS, SIZE = (2, 3, 5, 7, 10), 5, 5
STARTS, LONGEST = 4, 1000  # of expectation maximisation, and its most steps
SETS = 10  # of simulated rows, whose mean is taken
COURSE, STEPS = 5, (1, 3, 10, 30, 100, 300)  # slices, and steps of the optimisations that are looked at
WITHIN, ABOVE = 0.01, 3.0  # nats a sequence
EM, ROWS = "expectation maximisation, plug-in", "rows simulated from it"


def main(*, smoke: bool = False, results: str | Path = RESULTS, seeds: int = SEEDS) -> pd.DataFrame:
    """Merges simulated sources, scores clean test sequences and writes ``results/dbn_course.md``.

    Args:
        smoke: Two lengths, one network, few draws and steps; nothing is written.
        results: Folder of the table.
        seeds: Simulated networks.

    Returns:
        One row a claim: ``claim``, ``measured``, ``met``; ``attrs`` holds ``records``.
    """
    torch.set_num_threads(1)
    begin = time.process_time()
    slices, steps, seeds = ((2, COURSE), STEPS[:3], 1) if smoke else (SLICES, STEPS, seeds)
    settings = Settings(draws=400, test=300) if smoke else Settings()
    found = []
    for seed in range(seeds):
        for length in slices:
            records = _measured(length, seed, settings, steps if length == COURSE else ())
            found += [{"T": length, "seed": seed} | record for record in records.found]
    records = pd.DataFrame(found)
    table = pd.DataFrame(_claims(records, max(steps), slack=0.1 if smoke else 0.0))  # few draws, few test sequences
    table.attrs = {"records": records}
    whole = records[records["step"].isna()]
    by_length = whole.pivot_table(index=["method", "M", "weights"], columns="T", values="predictive", aggfunc="mean")
    course = records[records["step"].notna()].astype({"step": int})
    by_step = course.pivot_table(index=["method", "M"], columns="step", values="predictive", aggfunc="mean")
    seconds = whole.groupby("method", sort=False)["seconds"].median().dropna().rename("median seconds").reset_index()
    notes = [
        f"Nats a clean test sequence, mean over {seeds} simulated networks; {settings.sources} sources of "
        f"{settings.rows} sequences, 6 variables of which each source hides {settings.hidden}, noise sd "
        f"{settings.noise:g}. Rows and all sources: log of the posterior predictive. Claims compare within a network.",
        f"{EM}: the likelier of {STARTS} ends, from all sources, the noise known. {ROWS}: mean over {SETS} sets, by "
        "their exact posterior, each row counted once, or as often as there are sequences to a row.",
        "Along the optimisation: T = 5; distilled: L-BFGS from rows simulated at the posterior mean. The published "
        "algorithm starts from the sources' own rows; its steps are zeroth-order.",
        "Seconds of processor time; all sources: their posterior, which distilled rows take as given.",
        f"{(time.process_time() - begin) / 60:.1f} minutes of processor time.",
        stamps.last_line(stamps.machine(1), [] if smoke else [stamps.source_hash("studies.dbn_course")]),
    ]
    report(
        None if smoke else Path(results) / "dbn_course.md",
        "# Merged rows, plug-ins and simulated rows",
        "## Claims",
        table,
        "## By number of slices",
        by_length.reset_index(),
        "## Along the optimisation",
        by_step.reset_index(),
        "## Seconds",
        seconds,
        notes=notes,
        floats=".2f",
    )
    return table


def _measured(slices: int, seed: int, settings: Settings, steps: tuple[int, ...]) -> Records:
    """One simulated merge."""
    records = simulated(slices, seed, settings, settings.rows)
    problem, size = records.problem, SIZE
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # pairs that no source sees together are part of the setting
        begin = time.process_time()
        full = pooled(problem.template, problem.sources, draws=settings.draws, seed=seed)
        _add(records, "all sources", full.draws, time.process_time() - begin)
        begin = time.process_time()
        rows = merge(full.template, full.sources, size=size, seed=seed, complete=True, full=full, certificate=False)
        seconds = time.process_time() - begin
        records.rows("distilled", size, rows.data["x"], rows.weight, learned=False, weights="own", seconds=seconds)
        begin = time.process_time()
        fitted = maximised(full, seed)
        _add(records, EM, fitted, time.process_time() - begin)
    for number in range(SETS):
        x, _ = rows_from(full.template, fitted, size, slices, seed=1000 * seed + number)
        for weights, each in (("1", 1.0), ("N / M", full.count / size)):
            counted = torch.full((size,), each, dtype=torch.float64)
            records.rows(ROWS, size, x, counted, learned=False, weights=weights)
    for size in (SIZE, 2 * SIZE) if steps else ():
        for step in steps:
            x, _, weight, _ = complete_rows(full, size, slices, seed=seed, equal_weights=False, iterations=step)
            records.rows("distilled", size, x, weight, learned=False, step=step)
        for step, x in enumerate(baselines.perturbed(problem, size, seed=seed, iterations=max(steps)), start=1):
            if step in steps:
                records.rows("published algorithm", size, x, learned=False, step=step)
    return records


def _add(records: Records, method: str, draws: Values, seconds: float) -> None:
    records.add(method, 0, "given", records.problem.template, draws, weights="", seconds=seconds)


def maximised(full: Pooled, seed: int) -> Values:
    """The likeliest end of expectation maximisation on all sources, site -> ``(1, *shape)``."""
    patterns = patterns_of(full.template, full.rows)
    generator = torch.Generator().manual_seed(seed)
    start = Augmentation(full.noisy, patterns, full.slices).starts(STARTS, generator)
    ends = expectation_maximised(full.noisy, patterns, full.slices, start=start, steps=LONGEST)
    marginal = Marginal(full.noisy, patterns, full.slices)
    best = int(marginal.log_joint(marginal.points(ends)).argmax())
    return {site: value[best : best + 1] for site, value in ends.items()}


def _claims(records: pd.DataFrame, most: int, slack: float) -> Iterator[dict[str, Any]]:
    whole, keys = records[records["step"].isna()], ["T", "seed"]
    by_method = {name: one for name, one in whole.groupby("method")}
    rows = by_method["distilled"].set_index(keys)["predictive"]
    below = (by_method["all sources"].set_index(keys)["predictive"] - rows).groupby("T").mean().max()
    yield {
        "claim": f"{SIZE} rows against all sources, every T, mean over networks: within {WITHIN:g} nats",
        "measured": f"at most {below:.4f} nats below",
        "met": bool(below <= WITHIN + slack),
    }
    gain = (rows - by_method[EM].set_index(keys)["predictive"]).groupby("T").mean().min()
    yield {
        "claim": f"{SIZE} rows against the plug-in of expectation maximisation, every T, mean: no worse",
        "measured": f"at least {gain:+.4f} nats",
        "met": bool(gain >= -slack),
    }
    drawn = by_method[ROWS].groupby(["weights", *keys])["predictive"].mean()
    over = (rows - drawn.groupby(keys).max()).min()
    yield {
        "claim": f"{SIZE} rows against {SIZE} {ROWS}, better weighting, every T and network: {ABOVE:g} nats above",
        "measured": f"at least {over:+.2f} nats",
        "met": bool(over >= ABOVE - slack),
    }
    course = records[records["step"].notna() & (records["M"] == 2 * SIZE)].pivot_table(
        index="method", columns="step", values="predictive", aggfunc="mean"
    )
    soon = max(step for step in course if step <= 30)
    over = course.loc["distilled", soon] - course.loc["published algorithm", most]
    yield {
        "claim": f"M = {2 * SIZE}: {soon:.0f} steps against {most} of the published algorithm: above",
        "measured": f"{over:+.2f} nats",
        "met": bool(over > 0),
    }


if __name__ == "__main__":
    commands.run(main)
