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
import os
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from studies import _cells
from studies._lens_table import markdown
from studies._pbc import LACKING, sequences
from studies._pbc_split import Split

SLICES = 6
SIZES = (5, 10, 20, 50)


def main(
    *,
    smoke: bool = False,
    results: str | Path = _cells.ROOT / "studies" / "results",
    splits: int = 3,
    draws: int = 1600,
) -> pd.DataFrame:
    """Measures, prints the tables and writes ``results/pbc_merge.md`` and ``.png``.

    Args:
        smoke: One split, three slices, M = 10; nothing is written.
        results: Folder of the table and the figure.
        splits: Splits into hospitals and held-out patients.
        draws: Draws of each joint posterior.

    Returns:
        One row a claim: ``claim``, ``measured``, ``met``; ``attrs`` holds ``records``, ``coefficients``, ``edges`` and
        ``notes``.
    """
    torch.set_num_threads(1)
    begin, slices = time.process_time(), 3 if smoke else SLICES
    sizes, splits, draws = ((10,), 1, 160) if smoke else (SIZES, splits, draws)
    x = torch.as_tensor(sequences(slices))
    records, first = [], None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what complete rows over-state is in the table of coefficients
        for split in range(splits):
            run = Split(x, split, draws)
            records += [{"split": split} | record for record in run.records(sizes)]
            first = first or run
        assert first is not None  # there is a split
        size = 20 if 20 in sizes else sizes[-1]
        coefficients, edges = first.coefficients(size), first.edges(size)
    found = pd.DataFrame(records)
    table = pd.DataFrame(_claims(found, coefficients, size))
    notes = [
        f"{len(x)} patients, {int((~x.isnan().all(2)).sum())} patient-years with a visit in {slices} yearly slices; a "
        f"quarter held out; {splits} splits; hospitals lack {', '.join(' and '.join(names) for names in LACKING)}.",
        "Nats a held-out patient, log of the posterior predictive of all that was measured of the patient, mean over "
        "patients and splits. distilled: M complete weighted rows from the four hospitals. patients measured in full: "
        "M patients of the hospitals with all six values. all hospitals: the posterior given what the four have; with "
        "nothing withheld: given all six values of all their patients.",
        f"Coefficients: posterior mean (deviation), split 0, M = {size}; values are logs, in the units of `_pbc.py`; "
        "a step is a year.",
        f"Edges that the BGe score finds in the {size} distilled rows that are made under all edges, split 0: "
        + "; ".join(f"{a} -> {b}{' a year on' if later else ''}" for later, a, b in edges)
        + ".",
        f"{(time.process_time() - begin) / 60:.1f} minutes of processor time. {_cells.machine(1)}; source "
        f"{_cells.source_hash('pbc_merge')}",
    ]
    table.attrs = {"records": found, "coefficients": coefficients, "edges": edges, "notes": notes}
    text = _text(table, found, coefficients, notes)
    print(text)
    if not smoke:
        target = Path(results) / "pbc_merge.md"
        target.with_suffix(".part").write_text(text)
        os.replace(target.with_suffix(".part"), target)
        first.figure(size, Path(results) / "pbc_merge.png")
        print(f"wrote {target} and {Path(results) / 'pbc_merge.png'}")
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
    rows, full = f"{size} distilled rows", "all hospitals"
    shift = ((coefficients[rows, "mean"] - coefficients[full, "mean"]) / coefficients[full, "std"]).abs()
    yield {
        "claim": f"M = {size}: coefficients of bilirubin and albumin within one deviation of all hospitals'",
        "measured": f"{shift.max():.2f} deviations at worst ({shift.idxmax()})",
        "met": bool(shift.max() <= 1),
    }


def _text(table: pd.DataFrame, found: pd.DataFrame, coefficients: pd.DataFrame, notes: list[str]) -> str:
    groups = found.groupby(["method", "M"])["nats"]
    error = (groups.std() / np.sqrt(groups.count())).map(lambda e: "" if np.isnan(e) else f" ({e:.2f})")
    nats = (groups.mean().map("{:.2f}".format) + error).rename("nats a patient (se over splits)").reset_index()
    methods = list(dict.fromkeys(method for method, _ in coefficients.columns))
    shown = pd.DataFrame({"coefficient": coefficients.index})
    for method in methods:
        pairs = zip(coefficients[method, "mean"], coefficients[method, "std"], strict=True)
        shown[method] = [f"{mean:+.2f} ({deviation:.2f})" for mean, deviation in pairs]
    parts = ["# One table from four hospitals: primary biliary cholangitis", "## Claims", markdown(table)]
    parts += ["## Held-out patients", markdown(nats), "## The yearly course", markdown(shown)]
    return "\n".join([*parts, *(f"- {note}" for note in notes)]) + "\n"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m studies.pbc_merge", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help="one split, three slices: seconds")
    parser.add_argument("--results", default=_cells.ROOT / "studies" / "results", help="default: studies/results")
    parser.add_argument("--splits", type=int, default=3, help="default: %(default)s")
    sys.exit(0 if bool(main(**vars(parser.parse_args()))["met"].all()) else 1)
