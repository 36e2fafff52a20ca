"""Ten seeds of ten tasks: how far is the distilled posterior from the full one, truly?

Question: with no setting but ``size`` and ``seed``, how many nats lie between the two posteriors, and does the
certificate say so?
Claim: the bounds in the table's column "claim"; the certificate's interval (two standard errors) contains the KL that
is computed independently of it (exact formulas, or importance sampling in NumPy: ``_true_kl.py``); constant columns
stay exactly constant.
How it could fail: fits that agree at the mode and not beside it (the KL between the two Laplace fits, a side column,
can be gamed that way); starting rows that happen to be bad (the worst seed is shown); a certificate that looks where
the distilled posterior is and not where the full one is.
Cost: about an hour on one thread. Each cell (task, seed) is a process and a JSON file: an interrupted run goes on where
it stopped. Simulated data are drawn anew with every seed. ds1 and posteriordb are no part of the project: name the
folder that holds them by ``--data`` or BAYESDD_DATA, or their rows are left out.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from studies.shared import cells
from studies.shared.glm_cases import CASES, Case

ROUNDING = 1e-6  # nats: the least that any claim speaks of; the certificate may round below it


def main(
    *,
    smoke: bool = False,
    data: str | Path | None = None,
    results: str | Path = cells.ROOT / "studies" / "results",
    seeds: int = 10,
    only: str = "",
    threads: int = 1,
    jobs: int = 1,
) -> pd.DataFrame:
    """Measures what is not measured yet, prints the table and writes it to ``results/glm_accuracy.md``.

    Args:
        smoke: Tiny versions of the tasks that need no data, one seed, in this process; nothing is written.
        data: Folder that holds ds1_large.npz and posteriordb/; default the environment's BAYESDD_DATA.
        results: Folder of the table; the cells lie in ``glm_accuracy/`` in it.
        seeds: Seeds a task.
        only: Only tasks whose name contains this; the table is then printed, not written.
        threads: Threads a process.
        jobs: Processes at a time.

    Returns:
        The table, one row a task; ``met`` says whether the claim holds; ``attrs["notes"]`` the lines below it.
    """
    data = data or os.environ.get("BAYESDD_DATA") or None
    chosen = [case for case in CASES if only in case.name]
    if not chosen:
        raise ValueError(f"no task's name contains {only!r}; the names are {', '.join(case.name for case in CASES)}")
    notes: list[str] = []
    if smoke:
        chosen = [case for case in chosen if not case.needs_data]
        measured = {case.name: [measure(case.name, 0, smoke=True)] for case in chosen}
    else:
        lacking = [case for case in chosen if case.needs_data and (data is None or not case.available(Path(data)))]
        notes = [f"skipped {case.name}: its data are not there (--data DIR or BAYESDD_DATA)" for case in lacking]
        print("".join(f"{note}\n" for note in notes), end="", flush=True)
        chosen = [case for case in chosen if case not in lacking]
        measured = _measured(chosen, data, Path(results), seeds, threads, jobs)
    table = pd.DataFrame(
        [_row(case, measured[case.name]) for case in chosen], columns=None if chosen else ["task", "met"]
    )
    table.attrs["notes"] = [
        *_legend(),
        *notes,
        cells.machine(threads) + f"; source {cells.source_hash('glm_accuracy')}",
    ]
    text = _markdown(table)
    print(text)
    if not smoke and not only:
        target = Path(results) / "glm_accuracy.md"
        cells.write(target, text)
        print(f"wrote {target}")
    return table


def _measured(
    cases: list[Case], data: str | Path | None, results: Path, seeds: int, threads: int, jobs: int
) -> dict[str, list[dict[str, Any]]]:
    commands = {}
    for case in cases:
        for seed in range(seeds):
            arguments = ["-m", "studies.glm_accuracy", "--cell", case.name, "--seed", str(seed)]
            if data is not None:
                arguments += ["--data", str(Path(data).resolve())]
            commands[f"{case.name}-{seed}"] = arguments
    folder = results / "glm_accuracy"
    cells = cells.run(commands, folder, "glm_accuracy", threads=threads, jobs=jobs)
    return {case.name: [cells[f"{case.name}-{seed}"] for seed in range(seeds)] for case in cases}


def measure(name: str, seed: int, *, data: str | Path | None = None, smoke: bool = False) -> dict[str, Any]:
    """One cell: distils, then computes the true KL.

    Args:
        name: A case.
        seed: Seed of the simulated data and of the distillation.
        data: Folder of the data that are no part of the project.
        smoke: The tiny version.

    Returns:
        What goes into the cell's file: sizes, true KLs and the certificate's, verdicts, seconds, peak memory.
    """
    import torch

    from bayesdd import CertificateWarning, distill

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    case = next(case for case in CASES if case.name == name)
    size = case.smoke_size if smoke else case.size
    task = case.task(seed, None if data is None else Path(data), smoke)
    begin = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CertificateWarning)  # the verdict is in the table
        distilled = distill(task, size=size, seed=seed, progress=False)
    seconds, memory = time.perf_counter() - begin, cells.peak_memory()
    true = case.truth(task, distilled, seed, None if data is None else Path(data))
    certificate = distilled.certificate
    assert certificate is not None  # distill attaches one
    contains = {}
    for way in ("reverse", "forward"):
        error = np.hypot(getattr(certificate, f"kl_{way}_se"), true[f"{way}_se"])
        distance = abs(getattr(certificate, f"kl_{way}") - true[way])
        contains[way] = bool(distance <= 2 * error + ROUNDING)
    constant = {n: c == c[:1] for n, c in task.data.items() if c.is_floating_point()}
    kept = [
        bool((distilled.data[n] == task.data[n][:1])[:, same.all(0)].all()) if same.all(0).any() else True
        for n, same in constant.items()
    ]
    claimed = {key: value for key, value in certificate.to_dict().items() if key not in ("corrected", "better_mode")}
    return {
        "rows": task.size,
        "dim": task.dim,
        "size": size,
        "true": true,
        "certificate": claimed,
        "ok": certificate.ok,
        "contains": contains,
        "constant": all(kept),
        "seconds": seconds,
        "memory": memory,
    }


def _row(case: Case, cells: list[dict[str, Any]]) -> dict[str, Any]:
    """One row of the table from the seeds of one task."""
    good = [cell for cell in cells if "error" not in cell]
    if not good:
        return {"task": case.title, "seeds": f"0/{len(cells)}", "met": False}
    true = pd.DataFrame([cell["true"] for cell in good])
    shown = true.assign(forward=true["stan"]) if "stan" in true else true
    ways = {way: (float(shown[way].median()), float(shown[way].max())) for way in ("reverse", "forward")}
    claims = [ways["forward"]] if case.forward_only else list(ways.values())
    met = len(good) == len(cells) and all(m <= case.median and w <= case.worst for m, w in claims)
    seconds = [cell["seconds"] for cell in good]
    count = 2 * len(good)
    return {
        "task": case.title,
        "N": good[0]["rows"],
        "P": good[0]["dim"],
        "M": good[0]["size"],
        "seeds": f"{len(good)}/{len(cells)}",
        "reverse KL": _pair(*ways["reverse"]),
        "forward KL": _pair(*ways["forward"]),
        "claim": f"{case.median:g}" + (f" ({case.worst:g})" if np.isfinite(case.worst) else ""),
        "met": met,
        "certificate contains it": f"{sum(sum(cell['contains'].values()) for cell in good)}/{count}",
        "certified": f"{sum(cell['ok'] for cell in good)}/{len(good)}",
        "constants kept": f"{sum(cell['constant'] for cell in good)}/{len(good)}",
        "seconds": f"{np.median(seconds):.1f} ({max(seconds):.1f})",
        "peak GiB": f"{max(cell['memory'] for cell in good):.2f}",
        "Laplace KL": _pair(float(true["laplace"].median()), float(true["laplace"].max())),
        "best published code (Laplace KL)": case.published,
    }


def _pair(median: float, worst: float) -> str:
    # Differences between log-likelihoods of some 1e4 nats are rounded at about 1e-12.
    shown = ["<1e-12" if value < 1e-12 else f"{value:.2g}" for value in (median, worst)]
    return f"{shown[0]} ({shown[1]})"


def _legend() -> list[str]:
    return [
        "KLs in nats, median over seeds (worst seed). reverse: KL(distilled, full); forward: KL(full, distilled).",
        "Gaussian mean and linear regression: exact. Others: importance sampling, 20,000 draws; standard errors are a "
        "few percent of each KL. posteriordb: forward KL at Stan's 10,000 reference draws.",
        "certificate contains it: of both KLs of every seed, those within two standard errors of the certificate's "
        "(about 95% are expected; differences below 1e-6 nats count as none). certified: both KLs within 0.05 nats.",
        "Laplace KL: KL(distilled, full) between the two Laplace fits, as the coreset papers report it (varying "
        "intercepts: of the marginal without intercepts). seconds: of distill(), certificate included. peak: of the "
        "whole process, imports included.",
    ]


def _markdown(table: pd.DataFrame) -> str:
    """The table and its notes."""

    def line(cells: Mapping[Any, Any]) -> str:
        shown = ({True: "yes", False: "**no**"}.get(v, v) if isinstance(v, bool) else v for v in cells.values())
        shown = (
            "" if isinstance(v, float) and np.isnan(v) else f"{v:,.0f}" if isinstance(v, float) else v for v in shown
        )
        return "| " + " | ".join(f"{v:,}" if isinstance(v, int) else str(v) for v in shown) + " |"

    rows = [line(record) for record in table.to_dict("records")]
    head = [line({name: name for name in table.columns}), "|" + "---|" * len(table.columns)]
    return "\n".join([*head, *rows, "", *(f"- {note}" for note in table.attrs["notes"])]) + "\n"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m studies.glm_accuracy", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help="tiny tasks, one seed: seconds")
    parser.add_argument("--data", help="folder that holds ds1_large.npz and posteriordb/; default: BAYESDD_DATA")
    parser.add_argument("--results", default=cells.ROOT / "studies" / "results", help="default: studies/results")
    parser.add_argument("--seeds", type=int, default=10, help="default: %(default)s")
    parser.add_argument("--only", default="", help="only tasks whose name contains this")
    parser.add_argument("--threads", type=int, default=1, help="threads a process; default: %(default)s")
    parser.add_argument("--jobs", type=int, default=1, help="processes at a time; default: %(default)s")
    parser.add_argument("--cell", choices=[case.name for case in CASES], help="measure one cell, print its JSON")
    parser.add_argument("--seed", type=int, default=0, help="seed of --cell; default: %(default)s")
    arguments = vars(parser.parse_args())
    cell, seed = arguments.pop("cell"), arguments.pop("seed")
    if cell is None:
        sys.exit(0 if bool(main(**arguments)["met"].all()) else 1)
    print(json.dumps(measure(cell, seed, data=arguments["data"], smoke=arguments["smoke"])))
