"""Which model forms does bayesdd get right?

Question: the models of the Stan and Pyro galleries that have one plate of rows, written as people write them and with
the columns that people bring: which are distilled rightly, which are refused, which are wrong?
Claim: every form is right (certified, and truly within the certificate's tolerance) or refused in one line; at most one
in eight is refused; none takes more than 60 s of processor time, the size being 2 P + 4 rows, more for groups.
How it could fail: a log-likelihood that branches on a column's value, of which synthetic rows know one branch only; a
column taken for another kind; a certificate that repeats the mistake of the search. The true KLs therefore come from
closed forms, grids, or Pyro's own densities at draws of both posteriors, not from the certificate's code.
Second table: posteriors of posteriordb, whose means and sds must be those of Stan's reference draws, within 0.05 sd
and 3 %, beyond two Monte Carlo errors. The data are no part of the project: name the folder that holds them by
``--data`` or BAYESDD_DATA, or that table is left out.
Cost: an hour and a half on one thread. Each form is a process and a JSON file: an interrupted run continues where it
stopped.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pandas as pd

from studies.contract import references
from studies.contract.cell import measure
from studies.contract.forms import FORMS, SMOKE
from studies.contract.table import legend, row
from studies.shared import cells, stamps, tables
from studies.shared.commands import named

CELL, REFERENCE = "studies.contract.cell", "studies.contract.references"
REFUSED = 8  # one form in so many may be refused


def main(
    *,
    smoke: bool = False,
    data: str | Path | None = None,
    results: str | Path = cells.RESULTS,
    only: str = "",
    seed: int = 0,
    threads: int = 1,
    jobs: int = 1,
) -> pd.DataFrame:
    """Measures what is not measured yet, prints the table and writes it to ``results/contract.md``.

    Args:
        smoke: Three forms, in this process; nothing is written.
        data: Folder that holds posteriordb/; default the environment's BAYESDD_DATA.
        results: Folder of the table; the cells lie in ``contract/`` in it.
        only: Only forms whose name contains this; the table is then printed, not written.
        seed: Seed of the data and of the distillation.
        threads: Threads a process.
        jobs: Processes at a time.

    Returns:
        The table, one row a form; ``attrs["notes"]`` the lines below it, ``attrs["claims"]`` what is claimed of all.
    """
    data = data or os.environ.get("BAYESDD_DATA") or None
    forms = [form for form in FORMS if (form.name in SMOKE if smoke else only in form.name)]
    found = None if smoke or data is None or not (Path(data) / "posteriordb").is_dir() else Path(data).resolve()
    others = [one for one in references.REFERENCES if found is not None and only in one.name]
    if not forms and not others:
        named(only, [form.name for form in FORMS], "form")
    commands = {form.name: ["-m", "studies.contract", "--cell", form.name, str(seed)] for form in forms}
    posteriors = {o.name: ["-m", "studies.contract", "--reference", o.name, str(seed), str(found)] for o in others}
    measured: dict[str, dict[str, Any]]
    if smoke:
        measured = {form.name: measure(form.name, seed) for form in forms}
    else:
        folder = Path(results) / "contract"
        measured = cells.run(commands, folder, CELL, threads=threads, jobs=jobs)
        compared = cells.run(posteriors, folder / "posteriordb", REFERENCE, threads=threads, jobs=jobs)
    table = pd.DataFrame([row(form, measured[form.name]) for form in forms], columns=None if forms else ["met"])
    claims, parts = _claims(table), [table]
    notes = legend()
    if others:
        second = pd.DataFrame([references.row(one, compared[one.name]) for one in others])
        claims.loc[len(claims)] = [references.CLAIM, f"{second['met'].sum()} of {len(second)}", second["met"].all()]
        parts.append(second)
    elif not smoke:
        notes.append("skipped posteriordb: its data are not there (--data DIR or BAYESDD_DATA)")
    where = stamps.machine(threads) if smoke else stamps.machines([*measured.values(), *compared.values()])
    notes.append(stamps.last_line(where, [stamps.source_hash(CELL), stamps.source_hash(REFERENCE)]))
    table.attrs = {"notes": notes, "claims": claims}
    tables.report(None if smoke or only else Path(results) / "contract.md", claims, *parts, notes=notes)
    return table


def _claims(table: pd.DataFrame) -> pd.DataFrame:
    """What is claimed of all forms, and how many it holds for."""
    if table.empty:
        return pd.DataFrame(columns=["claim", "found", "met"])
    verdicts = table["verdict"].str.split(":").str[0].value_counts()
    refused = int(verdicts.get("refused", 0))
    counted = ", ".join(f"{count} {verdict}" for verdict, count in verdicts.items())
    return pd.DataFrame(
        {
            "claim": ["every form is right or refused, and fast enough", f"at most one in {REFUSED} is refused"],
            "found": [f"of {len(table)}: {counted}", f"{refused} of {len(table)}"],
            "met": [bool(table["met"].all()), refused * REFUSED <= len(table)],
        }
    )
