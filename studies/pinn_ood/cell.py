"""Cells of ``pinn_ood``: a target, and every method's rows with what students from scratch make of them."""

from __future__ import annotations

import time
from typing import Any

from studies.pinn_ood import methods, parts
from studies.shared import cells


def target(family: str, seed: int, *, smoke: bool = False) -> dict[str, Any]:
    """A target's cell: its predictive at the purpose and at the tests, with and without boundary values."""
    return parts.teach(parts.FAMILIES[family], seed, smoke=smoke)


def measure(family: str, seed: int, size: int, teacher: dict[str, Any], *, smoke: bool = False) -> dict[str, Any]:
    """One cell: every method's rows, and what students from scratch make of them.

    Args:
        family: Name of the family.
        seed: Seed of the measurements and of the distillation.
        size: Number M of rows.
        teacher: The target's cell.
        smoke: The tiny version.
    """
    cells.set_threads()
    begin = time.process_time()
    setting = methods.Setting(parts.FAMILIES[family], seed, teacher, smoke)
    rows, weight, said = methods.distilled(setting, size)
    found = {"distilled": parts.judge(setting.family, setting.learner, rows, weight, smoke=smoke) | said}
    found["distilled"]["rows"] = {name: column.tolist() for name, column in rows.items()} | {"weight": weight.tolist()}
    for name, method in {**methods.METHODS, "no physics": methods.no_physics}.items():
        found[name] = parts.judge(setting.family, setting.learner, *method(setting, size), smoke=smoke)
    return {"methods": found, "seconds": time.process_time() - begin}
