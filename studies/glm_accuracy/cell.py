"""One cell of ``glm_accuracy``: a task distilled with one seed, its true KLs beside the certificate's."""

from __future__ import annotations

import math
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from bayesdd import CertificateWarning, Task, distill
from studies.shared import cells
from studies.shared.glm_cases import CASES, Case

ROUNDING = 1e-8  # nats: the least that any claim speaks of; the certificate may round below it
CLOSEST = 1e-8  # nats, the tolerance that asks for all that the rows can do


def measure(name: str, seed: int, *, data: str | Path | None = None, smoke: bool = False) -> dict[str, Any]:
    """One cell: distils at the default tolerance, and as close as the rows can come; then computes the true KLs.

    Args:
        name: A case.
        seed: Seed of the simulated data and of the distillation.
        data: Folder of the data that are no part of the project.
        smoke: The tiny version.

    Returns:
        What goes into the cell's file: sizes, true KLs and the certificate's, verdicts, seconds, peak memory.
    """
    cells.set_threads()
    case = next(case for case in CASES if case.name == name)
    folder = None if data is None else Path(data)
    task = case.task(seed, folder, smoke)
    size = case.smoke_size if smoke else case.size
    found = {"rows": task.size, "dim": task.dim, "size": size} | _distilled(case, task, size, seed, folder, None)
    if math.isfinite(case.closest):
        found["closest"] = _distilled(case, task, size, seed, folder, 1e-2 if smoke else CLOSEST)
    return found


def _distilled(
    case: Case, task: Task, size: int, seed: int, data: Path | None, tolerance: float | None
) -> dict[str, Any]:
    """One distillation: what it took, what it claims and what is true."""
    begin = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CertificateWarning)  # the verdict is in the table
        distilled = distill(task, size, tolerance, seed=seed, progress=False)
    seconds, memory = time.perf_counter() - begin, cells.peak_memory()
    true = case.truth(task, distilled, seed, data)
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
        "true": true,
        "certificate": claimed,
        "ok": certificate.ok,
        "contains": contains,
        "constant": all(kept),
        "seconds": seconds,
        "memory": memory,
    }
