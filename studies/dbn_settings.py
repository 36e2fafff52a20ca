"""Merged rows beside what a careful user would do instead, as sources differ in number, size, noise and width.

Question: ``studies.dbn_course`` asks it of four equal sources with a known noise. What of three or ten sources, of
unequal ones, of a noise from a tenth to one or one that nobody knows, of ten and twenty variables? Do five rows still
predict clean test sequences as well as all sources together, and better than plug-ins, simulated rows and imputation?
Claim: in every setting five rows are within 0.02 nats a sequence and variable of all sources together, and above rows
simulated from expectation maximisation and both ways of imputation.
How it could fail: five rows may not hold what twenty variables' regressions need; with an unknown noise the posterior
has a ridge that complete rows cannot follow; where noise is small, imputation may do as well.
Cost: about ten minutes on one thread.

Iterative imputation: scikit-learn's chained ridge regressions, on whole sequences (the tie of parameters over time is
lost on them, as on their users) and on pairs of neighbouring slices, with the variance of the noise taken off the
moments. Where the noise is unknown nothing is taken off.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import torch

from bayesdd.dbn import merge
from bayesdd.dbn.inference import Posterior, pooled
from bayesdd.dbn.likelihood.parameters import simulated
from studies.dbn_course import maximised
from studies.dbn_merge import baselines
from studies.dbn_merge.cases import Problem, gaussian
from studies.dbn_merge.records import JUDGED, Records
from studies.shared import commands, stamps
from studies.shared.cells import RESULTS
from studies.shared.tables import report

SLICES, SEEDS, TEST = 5, 3, 1000
SIZES = (5, 20)
SETS = 5  # of simulated rows, whose mean is taken
DRAWS = 2000
WITHIN = 0.02  # nats a sequence and variable
FULL, EM, ROWS = "all sources", "expectation maximisation, plug-in", "rows simulated from it"
WHOLE, PAIRS = "imputation of sequences", "imputation of pairs, noise taken off"


class Setting(NamedTuple):
    """A merge: what ``cases.gaussian`` takes, the sources' sizes if they differ, and whether their noise is known."""

    name: str
    of: dict[str, Any]
    sizes: tuple[int, ...] = ()
    known: bool = True


SETTINGS = (
    Setting("four of 100, noise 0.3", {}),
    Setting("three sources", {"sources": 3}),
    Setting("ten sources", {"sources": 10}),
    Setting("of 20, 50, 100 and 400", {"rows": 400}, sizes=(20, 50, 100, 400)),
    Setting("noise 0.1", {"noise": 0.1}),
    Setting("noise 1", {"noise": 1.0}),
    Setting("noise unknown", {}, known=False),
    Setting("10 variables", {"variables": 10, "hidden": 3}),
    Setting("20 variables", {"variables": 20, "hidden": 6}),
)


def main(*, smoke: bool = False, results: str | Path = RESULTS, seeds: int = SEEDS) -> pd.DataFrame:
    """Merges simulated sources, scores clean test sequences and writes ``results/dbn_settings.md``.

    Args:
        smoke: The first setting, one network of few draws; nothing is written.
        results: Folder of the table.
        seeds: Simulated networks of each setting.

    Returns:
        One row a setting; ``met`` says whether the claim holds.
    """
    torch.set_num_threads(1)
    begin, settings, seeds = time.process_time(), SETTINGS[:1] if smoke else SETTINGS, 1 if smoke else seeds
    found = []
    for setting in settings:
        for seed in range(seeds):
            records = _measured(setting, seed, 400 if smoke else DRAWS)
            found += [{"setting": setting.name, "seed": seed} | record for record in records.found]
            print(f"{setting.name}, {seed}: {(time.process_time() - begin) / 60:.1f} min", flush=True)
    records = pd.DataFrame(found)
    table = pd.DataFrame([_row(setting, records[records.setting.eq(setting.name)]) for setting in settings])
    table.attrs = {"records": records}
    report(
        None if smoke else Path(results) / "dbn_settings.md",
        table,
        notes=[
            f"Nats a clean test sequence of {SLICES} slices, mean over {seeds} simulated networks; six variables of "
            "which each source hides two, unless the setting says otherwise. All sources and rows: log of the "
            f"posterior predictive. {ROWS}: {SIZES[0]} of them, by their exact posterior, each as often as there are "
            f"sequences to a row, mean over {SETS} sets.",
            f"below: how far {SIZES[0]} rows are below all sources, in the worst network. met: by at most {WITHIN:g} "
            "nats a variable, and above simulated rows and imputations in every network.",
            "seconds: of the processor, median; of all sources' posterior, and of the rows given that.",
            stamps.last_line(stamps.machine(1), [] if smoke else [stamps.source_hash("studies.dbn_settings")]),
        ],
        floats=".2f",
    )
    return table


def _measured(setting: Setting, seed: int, draws: int) -> Records:
    """One simulated merge."""
    problem = _made(setting, seed)
    records, sources = Records(problem, problem.test[:TEST]), problem.sources
    if not setting.known:
        sources = [replace(some, noise=0.0, noise_site=f"noise_{k}") for k, some in enumerate(sources)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # pairs that no source sees together are part of the setting
        full = _timed(records, FULL, partial(pooled, problem.template, sources, draws=draws, seed=seed))
        records.add(FULL, 0, "given", problem.template, full.draws, rhat=full.rhat)
        for size in SIZES:
            made = partial(merge, full.template, sources, size=size, seed=seed, complete=True, full=full)
            rows = _timed(records, "rows", partial(made, certificate=False))
            records.rows("distilled", size, rows.data["x"], rows.weight, learned=False)
        fitted = maximised(full, seed)
        records.add(EM, 0, "given", problem.template, fitted)
    for number in range(SETS):
        x, _ = simulated(full.template, fitted, SIZES[0], SLICES, seed=1000 * seed + number)
        weight = torch.full((SIZES[0],), full.count / SIZES[0], dtype=torch.float64)
        records.rows(ROWS, SIZES[0], x, weight, learned=False)
    records.rows(WHOLE, 0, baselines.imputed(problem, seed=seed), learned=False)
    taken_off = problem if setting.known else replace(problem, noise=0.0)
    records.add(PAIRS, 0, "given", problem.template, paired(taken_off, seed=seed).draw(JUDGED, seed))
    return records


def _made(setting: Setting, seed: int) -> Problem:
    problem = gaussian(seed=seed, slices=SLICES, **setting.of)
    if not setting.sizes:
        return problem
    parts = [
        [part[:size] for part, size in zip(some.split(problem.sizes), setting.sizes, strict=True)]
        for some in (problem.clean, problem.seen)
    ]
    clean, seen = map(torch.cat, parts)
    return replace(problem, clean=clean, seen=seen, sizes=setting.sizes)


def _timed(records: Records, what: str, do: Callable[[], Any]) -> Any:
    begin = time.process_time()
    found = do()
    records.found.append({"method": f"seconds, {what}", "predictive": time.process_time() - begin})
    return found


def paired(problem: Problem, *, seed: int) -> Posterior:
    """Families of later slices from imputed pairs of neighbouring slices, those of the first from what is there."""
    size = len(problem.template.variables)
    pairs = torch.cat([problem.seen[:, :-1], problem.seen[:, 1:]], 2).flatten(0, 1)
    filled = baselines.imputed(replace(problem, seen=pairs[:, None]), seed=seed)[:, 0]
    both = replace(problem, seen=filled.reshape(-1, 2, size))
    first = {family.site for family in problem.template.structure.initial}
    own, later = baselines.available(problem), baselines.available(both)
    return Posterior({site: (own if site in first else later).families[site] for site in later.families})


def _row(setting: Setting, records: pd.DataFrame) -> dict[str, Any]:
    """A setting as it is printed."""
    of = records.assign(M=records["M"].fillna(0)).pivot_table(
        index="seed", columns=["method", "M"], values="predictive", aggfunc="mean"
    )
    few = of["distilled", SIZES[0]]
    below = float((of[FULL, 0] - few).max())
    rivals = {ROWS: of[ROWS, SIZES[0]], WHOLE: of[WHOLE, 0], PAIRS: of[PAIRS, 0]}
    variables = setting.of.get("variables", 6)
    return {
        "setting": setting.name,
        FULL: of[FULL, 0].mean(),
        **{f"{size} rows": of["distilled", size].mean() for size in SIZES},
        EM: of[EM, 0].mean(),
        **{name: rival.mean() for name, rival in rivals.items()},
        "below": f"{below:.3f}",
        "seconds": f"{of[f'seconds, {FULL}', 0].median():.1f}, {of['seconds, rows', 0].median():.1f}",
        "met": below <= WITHIN * variables and all(bool((few > rival).all()) for rival in rivals.values()),
    }


if __name__ == "__main__":
    commands.run(main)
