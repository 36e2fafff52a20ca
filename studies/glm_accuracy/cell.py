"""One cell of ``glm_accuracy``: a task distilled with one seed, its true KLs beside the certificate's."""

from __future__ import annotations

import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from bayesdd import CertificateWarning, distill
from studies.shared import cells
from studies.shared.glm_cases import CASES

ROUNDING = 1e-6  # nats: the least that any claim speaks of; the certificate may round below it


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
    cells.set_threads()
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
