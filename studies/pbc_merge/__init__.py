"""Four hospitals, each without two of six laboratory values: what do a few merged rows say of the course of a disease?

Question: the Mayo Clinic's visits of patients with primary biliary cholangitis, split into four artificial hospitals
that lack different laboratory values. Does a table of M synthetic patients with all values, distilled from the four,
predict held-out patients as well as all hospitals' records together do, and better than M real patients of whom
everything was measured?
Claim: from M = 10 on the distilled rows are within 0.1 nats a patient of all hospitals' posterior; they are above M
real patients with all values up to M = 20, mean over splits; posterior means of the coefficients of bilirubin and
albumin are within one posterior deviation of all hospitals'.
How it could fail: the records are no linear-Gaussian network (values are logs); who dies or leaves is missing for a
reason, which no method here models; a year without a visit is a slice of missing values; complete rows are too sure of
pairs of values that few hospitals measure together.
Cost: about three minutes on one thread. Visits become yearly slices as ``pbc.py`` says.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from studies.pbc_merge.cell import SHOWN_SIZE, SLICES, measure
from studies.pbc_merge.pbc import LACKING, sequences
from studies.shared import cells, stamps, tables


def main(*, smoke: bool = False, results: str | Path = cells.RESULTS, splits: int = 3) -> pd.DataFrame:
    """Measures what is not measured yet, prints the tables and writes ``results/pbc_merge.md`` and ``.png``.

    Args:
        smoke: One split, three slices, M = 10, in this process; nothing is written.
        results: Folder of the table and the figure; the cells lie in ``pbc_merge/`` in it.
        splits: Splits into hospitals and held-out patients.

    Returns:
        One row a claim: ``claim``, ``measured``, ``met``; ``attrs`` holds ``records``, ``coefficients``, ``edges`` and
        ``notes``.
    """
    slices, size = (3, 10) if smoke else (SLICES, SHOWN_SIZE)
    module = "studies.pbc_merge.cell"
    names = ["split-0", "edges"] if smoke else [*(f"split-{k}" for k in range(splits)), "edges"]
    if smoke:
        measured = {name: measure(name, smoke=True) for name in names}
    else:
        picture = str((Path(results) / "pbc_merge.png").resolve())
        commands = {name: ["-m", "studies.pbc_merge", "--cell", name, picture] for name in names}
        measured = cells.run(commands, Path(results) / "pbc_merge", module, threads=1, jobs=1)
    if lost := [f"{name}: {cell['error']}" for name, cell in measured.items() if "error" in cell]:
        raise RuntimeError(f"pbc_merge: {'; '.join(lost)}")
    found = pd.DataFrame([record for cell in measured.values() for record in cell.get("records", [])])
    coefficients = pd.DataFrame(measured["split-0"]["coefficients"])
    table = pd.DataFrame(_claims(found, coefficients, size))
    x = sequences(slices)
    notes = [
        f"{len(x)} patients, {int((~np.isnan(x).all(2)).sum())} patient-years with a visit in {slices} yearly slices; "
        f"a quarter held out; {splits} splits; hospitals lack {', '.join(' and '.join(names) for names in LACKING)}.",
        "Nats a held-out patient, log of the posterior predictive of all that was measured of the patient, mean over "
        "patients and splits. distilled: M complete weighted rows from the four hospitals. patients measured in full: "
        "M patients of the hospitals with all six values. all hospitals: the posterior given what the four have; "
        "nothing withheld: given all six values of all their patients.",
        f"Coefficients: posterior mean (deviation), split 0, M = {size}; values are logs, in the units of "
        "`studies/pbc_merge/pbc.py`; a step is a year.",
    ]
    learned = measured["edges"]["edges"]
    named = "; ".join(f"{a.replace('_before', ' a year before')} -> {b} ({share:.2f})" for a, b, share in learned)
    notes.append(f"Edges that the four hospitals together find more probable than not, split 0: {named}.")
    notes.append(f"{sum(cell['seconds'] for cell in measured.values()) / 60:.1f} minutes of processor time.")
    notes.append(stamps.last_line(stamps.machine(1), [] if smoke else [stamps.source_hash(module)]))
    table.attrs = {"records": found, "coefficients": coefficients, "edges": learned, "notes": notes}
    target = None if smoke else Path(results) / "pbc_merge.md"
    tables.report(target, *_parts(table, found, coefficients), notes=notes)
    return table


def _claims(found: pd.DataFrame, coefficients: pd.DataFrame, size: int) -> Iterator[dict[str, Any]]:
    mean = found.groupby(["method", "M"])["nats"].mean()
    ours, real, top = mean["distilled"], mean["patients measured in full"], mean["all hospitals"].iloc[0]
    worst = (ours[ours.index >= 10] - top).min()
    yield {
        "claim": "M >= 10: distilled rows within 0.1 nats a patient of all hospitals' posterior",
        "measured": f"{worst:+.3f} nats at worst",
        "met": bool(worst >= -0.1),
    }
    above = (ours - real)[ours.index <= 20]
    yield {
        "claim": "M <= 20: distilled rows above M patients measured in full",
        "measured": f"{above.min():+.2f} nats at worst (M = {above.idxmin()})",
        "met": bool(above.min() > 0),
    }
    wide = coefficients.pivot(index="coefficient", columns="posterior", values=["mean", "sd"])
    rows, full = f"{size} distilled rows", "all hospitals"
    shift = ((wide["mean", rows] - wide["mean", full]) / wide["sd", full]).abs()
    yield {
        "claim": f"M = {size}: coefficients of bilirubin and albumin within one deviation of all hospitals'",
        "measured": f"{shift.max():.2f} deviations at worst ({shift.idxmax()})",
        "met": bool(shift.max() <= 1),
    }


def _parts(table: pd.DataFrame, found: pd.DataFrame, coefficients: pd.DataFrame) -> list[str | pd.DataFrame]:
    groups = found.groupby(["method", "M"])["nats"]
    error = (groups.std() / np.sqrt(groups.count())).map(lambda e: "" if np.isnan(e) else f" ({e:.2f})")
    nats = (groups.mean().map("{:.2f}".format) + error).rename("nats a patient (se over splits)").reset_index()
    text = [f"{mean:+.2f} ({sd:.2f})" for mean, sd in zip(coefficients["mean"], coefficients["sd"], strict=True)]
    shown = coefficients.assign(text=text).pivot(index="coefficient", columns="posterior", values="text")
    shown = shown.reindex(coefficients["coefficient"].unique())[list(coefficients["posterior"].unique())].reset_index()
    parts = ["# One table from four hospitals: primary biliary cholangitis", "## Claims", table]
    return [*parts, "## Held-out patients", nats, "## The yearly course", shown]
