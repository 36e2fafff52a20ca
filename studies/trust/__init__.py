"""Can bayesdd be trusted: a verdict that is never wrong, files that cannot lie, a process that survives?

Question: what do certificates say of sets whose KL divergences are known by quadrature, and what happens to a process
that is killed, to files that are damaged, to verbs in two threads, to arguments that nobody meant?
Claim: that of each part, in the docstring of its file; each row of each table says whether it is met.
How it could fail: that of each part.
Cost: the parts' together, about two hours of processor time on one thread; cells are kept.
"""

from __future__ import annotations

import importlib
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd

from studies.shared import cells, stamps, tables
from studies.shared.cells import RESULTS

PARTS = ("certificates", "breaks", "targets", "calibration", "killed", "damaged", "threads", "inputs")


def main(
    *,
    smoke: bool = False,
    results: str | Path = RESULTS,
    threads: int = 1,
    jobs: int = 1,
    parts: tuple[str, ...] = PARTS,
    page: bool = False,
) -> pd.DataFrame:
    """Measures the parts and writes their tables to ``results/trust.md``.

    Args:
        smoke: A few cases of each part, in this process; nothing is written.
        results: Folder of the page and its cells.
        threads: Threads of each process.
        jobs: Processes at a time.
        parts: Parts that are measured; the page holds these.
        page: Measure nothing: the page of the cells on disk, whatever source measured them; it names each.

    Returns:
        The claims of all parts: ``part``, ``case``, and ``met``.
    """
    sections: list[str | pd.DataFrame] = ["# Trust"]
    claims, measured = [], []
    for name in parts:
        part = _module(name)
        words, folder = part.parts(smoke), Path(results) / "trust" / name
        if smoke:
            found = [cell(name, *some) for some in words.values()]
        elif page:
            found = [kept for one in words if (kept := cells.read(folder / f"{one}.json")) is not None]
        else:
            commands = {one: ["-m", "studies.trust", "--cell", name, *some] for one, some in words.items()}
            kept = cells.run(commands, folder, part.__name__, threads=threads, jobs=jobs)
            found = [one for one in kept.values() if "error" not in one]
        if not found:
            continue
        table = part.table(found)
        seconds = sum(cell.get("processor seconds", 0.0) for cell in found)
        cost = f"{len(found)} of {len(words)} cells are measured; processor time {seconds / 60:.1f} min."
        sections += [f"## {part.TITLE}", table, f"{part.NOTE} {cost}"]
        claims.append(pd.DataFrame({"part": name, "case": table.iloc[:, 0], "met": table["met"]}))
        measured += found
    if not smoke:
        sources = dict.fromkeys(f"{cell['stamp']['source']}" for cell in measured)
        stamp = stamps.last_line(stamps.machines(measured), sources)
    else:
        stamp = stamps.machine(threads)
    tables.report(None if smoke else Path(results) / "trust.md", *sections, floats=".3g", notes=[stamp])
    return pd.concat(claims, ignore_index=True)


def cell(part: str, *words: str) -> dict[str, Any]:
    """What one process measures: a cell of a part, and its seconds."""
    cells.set_threads()
    wall, processor = time.perf_counter(), time.process_time()
    found: dict[str, Any] = _module(part).cell(*words)
    return found | {
        "seconds": time.perf_counter() - wall,
        "processor seconds": found.get("processor seconds", 0.0) + time.process_time() - processor,
    }


def _module(part: str) -> ModuleType:
    return importlib.import_module(f"studies.trust.{part}")
