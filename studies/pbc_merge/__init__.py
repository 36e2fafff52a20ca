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
Cost: about three minutes on one thread. Visits become yearly slices as ``_pbc.py`` says.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from bayesdd import CertificateWarning
from studies.pbc_merge.pbc import LACKING, sequences
from studies.pbc_merge.split import Split
from studies.shared import cells
from studies.shared.tables import markdown

SLICES, DRAWS, SHOWN_SIZE = 6, 800, 20
SIZES = (5, 10, 20, 50)


def main(
    *,
    smoke: bool = False,
    results: str | Path = cells.ROOT / "studies" / "results",
    splits: int = 3,
) -> pd.DataFrame:
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
    if smoke:
        cells = {name: measure(name, smoke=True) for name in ("split-0", "edges")}
    else:
        names = [*(f"split-{k}" for k in range(splits)), "edges"]
        commands = {
            name: ["-m", "studies.pbc_merge", "--cell", name, "--results", str(Path(results).resolve())]
            for name in names
        }
        cells = cells.run(commands, Path(results) / "pbc_merge", "pbc_merge", threads=1, jobs=1)
    if lost := [f"{name}: {cell['error']}" for name, cell in cells.items() if "error" in cell]:
        raise RuntimeError(f"pbc_merge: {'; '.join(lost)}")
    found = pd.DataFrame([record for cell in cells.values() for record in cell.get("records", [])])
    coefficients = pd.DataFrame(cells["split-0"]["coefficients"])
    table = pd.DataFrame(_claims(found, coefficients, size))
    x = sequences(slices)
    notes = [
        f"{len(x)} patients, {int((~np.isnan(x).all(2)).sum())} patient-years with a visit in {slices} yearly slices; "
        f"a quarter held out; {splits} splits; hospitals lack {', '.join(' and '.join(names) for names in LACKING)}.",
        "Nats a held-out patient, log of the posterior predictive of all that was measured of the patient, mean over "
        "patients and splits. distilled: M complete weighted rows from the four hospitals. patients measured in full: "
        "M patients of the hospitals with all six values. all hospitals: the posterior given what the four have; "
        "nothing withheld: given all six values of all their patients.",
        f"Coefficients: posterior mean (deviation), split 0, M = {size}; values are logs, in the units of `_pbc.py`; "
        "a step is a year.",
        f"{sum(cell['seconds'] for cell in cells.values()) / 60:.1f} minutes of processor time. {cells.machine(1)}; "
        f"source {cells.source_hash('pbc_merge')}",
    ]
    learned = cells["edges"]["edges"]
    named = "; ".join(f"{a.replace('_before', ' a year before')} -> {b} ({share:.2f})" for a, b, share in learned)
    notes.append(f"Edges that the four hospitals together find more probable than not, split 0: {named}.")
    table.attrs = {"records": found, "coefficients": coefficients, "edges": learned, "notes": notes}
    text = _text(table, found, coefficients, notes)
    print(text)
    if not smoke:
        target = Path(results) / "pbc_merge.md"
        cells.write(target, text)
        print(f"wrote {target} and {Path(results) / 'pbc_merge.png'}")
    return table


def measure(cell: str, *, smoke: bool = False, results: Path | None = None) -> dict[str, Any]:
    """One cell: a split of the patients, or the edges learned in split 0.

    Args:
        cell: ``split-K`` or ``edges``.
        smoke: Three slices and M = 10.
        results: Folder of the figure, which split 0 draws; None draws none.

    Returns:
        ``records`` and, of split 0, ``coefficients``; or ``edges``; and ``seconds``.
    """
    torch.set_num_threads(1)
    begin = time.process_time()
    sizes, size = ((10,), 10) if smoke else (SIZES, SHOWN_SIZE)
    number = 0 if cell == "edges" else int(cell.removeprefix("split-"))
    split = Split(torch.as_tensor(sequences(3 if smoke else SLICES)), number, 160 if smoke else DRAWS)
    found: dict[str, Any] = {}
    with warnings.catch_warnings():
        # What complete rows over-state is seen in the coefficients; few patients make chains slow.
        warnings.simplefilter("ignore", UserWarning)
        warnings.simplefilter("ignore", CertificateWarning)
        if cell == "edges":
            found["edges"] = split.edges()
        else:
            found["records"] = [{"split": number} | record for record in split.records(sizes)]
            if number == 0:
                found["coefficients"] = split.coefficients(size)
            if number == 0 and results is not None:
                split.figure(size, results / "pbc_merge.png")
    return found | {"seconds": time.process_time() - begin}


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


def _text(table: pd.DataFrame, found: pd.DataFrame, coefficients: pd.DataFrame, notes: list[str]) -> str:
    groups = found.groupby(["method", "M"])["nats"]
    error = (groups.std() / np.sqrt(groups.count())).map(lambda e: "" if np.isnan(e) else f" ({e:.2f})")
    nats = (groups.mean().map("{:.2f}".format) + error).rename("nats a patient (se over splits)").reset_index()
    text = [f"{mean:+.2f} ({sd:.2f})" for mean, sd in zip(coefficients["mean"], coefficients["sd"], strict=True)]
    shown = coefficients.assign(text=text).pivot(index="coefficient", columns="posterior", values="text")
    shown = shown.reindex(coefficients["coefficient"].unique())[list(coefficients["posterior"].unique())].reset_index()
    parts = ["# One table from four hospitals: primary biliary cholangitis", "## Claims", markdown(table)]
    parts += ["## Held-out patients", markdown(nats), "## The yearly course", markdown(shown)]
    return "\n".join([*parts, *(f"- {note}" for note in notes)]) + "\n"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m studies.pbc_merge", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help="one split, three slices: seconds")
    parser.add_argument("--results", default=cells.ROOT / "studies" / "results", help="default: studies/results")
    parser.add_argument("--splits", type=int, default=3, help="default: %(default)s")
    parser.add_argument("--cell", help="measure one cell, print its JSON")
    arguments = vars(parser.parse_args())
    cell = arguments.pop("cell")
    if cell is None:
        sys.exit(0 if bool(main(**arguments)["met"].all()) else 1)
    print(json.dumps(measure(cell, results=Path(arguments["results"]))))
