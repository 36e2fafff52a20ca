"""Merged rows beside what a careful user would do instead, as sources differ in number, size, noise and width.

Question: ``studies.dbn_course`` asks it of four equal sources with a known noise. What of three or ten sources, of
unequal ones, of a noise from a tenth to one or one that nobody knows, of ten and twenty variables? Do five rows still
predict clean test sequences as well as all sources together, and better than plug-ins, simulated rows, imputation and
the published sampler for such networks?
Claim: in every setting five rows are within 0.02 nats a sequence and variable of all sources together, and above rows
simulated from expectation maximisation, every way of imputation and LUME-DBN.
How it could fail: five rows may not hold what twenty variables' regressions need; with an unknown noise the posterior
has a ridge that complete rows cannot follow; where noise is small, imputation, and LUME-DBN, which knows of no noise,
may do as well.
Cost: a quarter of an hour on one thread. Each setting is a process and a JSON file: an interrupted run continues where
it stopped.

Iterative imputation: scikit-learn's chained ridge regressions, on whole sequences (the tie of parameters over time is
lost on them, as on their users) and on pairs of neighbouring slices, with the variance of the noise taken off the
moments; of pairs also twenty times, pooled by Rubin's rules (``rivals``). Where the noise is unknown nothing is taken
off. LUME-DBN (``lume``) draws missing values and parameters in turn: as it is published, with measured values taken as
true, and with the noise modelled, where it draws from the posterior given all sources, by simpler means.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from studies.dbn_settings import cell
from studies.dbn_settings.cell import (
    EM,
    FULL,
    LUME,
    LUME_NOISE,
    MICE,
    PAIRS,
    ROWS,
    SETS,
    SETTINGS,
    SIZES,
    SLICES,
    WHOLE,
    Setting,
)
from studies.dbn_settings.lume import BURN, CHAINS
from studies.dbn_settings.rivals import SETS as IMPUTED
from studies.shared import cells, stamps
from studies.shared.tables import report

SEEDS = 3
WITHIN = 0.02  # nats a sequence and variable
BEATEN = (ROWS, WHOLE, PAIRS, MICE, LUME)  # by five rows, says the claim
RIVALS = (EM, *BEATEN, LUME_NOISE)


def main(*, smoke: bool = False, results: str | Path = cells.RESULTS, seeds: int = SEEDS) -> pd.DataFrame:
    """Measures what is not measured yet and writes ``results/dbn_settings.md``.

    Args:
        smoke: The first setting, one network of few draws, in this process; nothing is written.
        results: Folder of the table; the cells lie in ``dbn_settings/`` in it.
        seeds: Simulated networks of each setting.

    Returns:
        One row a setting; ``met`` says whether the claim holds.
    """
    if smoke:
        seeds = 1
        measured = {SETTINGS[0].name: cell.measure(0, seeds, draws=400)}
    else:
        measured = _measured(Path(results) / "dbn_settings", seeds)
    records = pd.DataFrame([record for one in measured.values() for record in one.get("records", [])])
    of = {setting.name: records[records.setting.eq(setting.name)] for setting in SETTINGS}
    table = pd.DataFrame([_row(setting, of[setting.name]) for setting in SETTINGS if len(of[setting.name])])
    table.attrs = {"records": records}
    where = stamps.machine(1) if smoke else stamps.machines(measured.values())
    report(
        None if smoke else Path(results) / "dbn_settings.md",
        "# Merged rows and what else one would do, by setting",
        table,
        "## Seconds",
        pd.DataFrame([_seconds(name, some) for name, some in of.items() if len(some)]),
        notes=[
            f"Nats a clean test sequence of {SLICES} slices, mean over {seeds} simulated networks; six variables of "
            "which each source hides two, unless the setting says otherwise. All sources and rows: log of the "
            f"posterior predictive. {ROWS}: {SIZES[0]} of them, by their exact posterior, each as often as there are "
            f"sequences to a row, mean over {SETS} sets.",
            f"MICE: {IMPUTED} imputed sets, parameters from the normals of Rubin's rules. LUME-DBN: missing values and "
            f"parameters in turn, {CHAINS} chains after {BURN} sweeps; measured values taken as true, as published, or "
            "with their known noise. Their priors and edges are those of all sources.",
            f"below: how far {SIZES[0]} rows are below all sources, in the worst network. best rival: the highest mean "
            f"of all but all sources and rows, and by how much it is above {SIZES[0]} rows. met: {SIZES[0]} rows at "
            f"most {WITHIN:g} nats a variable below, and above simulated rows, imputations and LUME-DBN as published "
            "in every network.",
            "Seconds: of the processor, median; of rows, given all sources' posterior. R-hat: of LUME-DBN's chains, "
            "noise modelled, worst network.",
            stamps.last_line(where, [] if smoke else [stamps.source_hash(cell.__name__)]),
        ],
        floats=".2f",
    )
    return table


def _measured(folder: Path, seeds: int) -> dict[str, dict[str, Any]]:
    """Setting -> what its process measured."""
    names = {setting.name: setting.name.replace(",", "").replace(" ", "-") for setting in SETTINGS}
    words = {
        f"{names[setting.name]}-{seeds}": ["-m", "studies.dbn_settings", "--cell", str(number), str(seeds)]
        for number, setting in enumerate(SETTINGS)
    }
    found = cells.run(words, folder, cell.__name__, threads=1, jobs=1)
    return {name: found[f"{short}-{seeds}"] for name, short in names.items()}


def _row(setting: Setting, records: pd.DataFrame) -> dict[str, Any]:
    """A setting as it is printed."""
    of = records.pivot_table(index="seed", columns=["method", "M"], values="predictive", aggfunc="mean")
    few, mean = of["distilled", SIZES[0]], records.groupby("method").predictive.mean()
    below = float((of[FULL, 0] - few).max())
    rivals = {name: of[name].iloc[:, 0] for name in RIVALS if name in mean}
    best = max(rivals, key=lambda name: float(rivals[name].mean()))
    variables = setting.of.get("variables", 6)
    return {
        "setting": setting.name,
        FULL: mean[FULL],
        **{f"{size} rows": of["distilled", size].mean() for size in SIZES},
        **{name: mean.get(name) for name in RIVALS},
        "below": f"{below:.3f}",
        "best rival": f"{rivals[best].mean() - few.mean():+.3f} ({best})",
        "met": below <= WITHIN * variables and all(bool((few > rivals[name]).all()) for name in BEATEN),
    }


def _seconds(name: str, records: pd.DataFrame) -> dict[str, Any]:
    """Median seconds of each method in a setting."""
    of = records.groupby(["method", "M"]).seconds.median()
    rhat = records[records.method.eq(LUME_NOISE)].rhat.max()
    return {
        "setting": name,
        FULL: of[FULL].iloc[0],
        **{f"{size} rows": of["distilled", size] for size in SIZES},
        **{rival: of[rival].iloc[0] if rival in of else None for rival in RIVALS},
        "R-hat": rhat,
    }
