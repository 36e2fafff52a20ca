"""``python -m studies.pinn_ood``."""

from typing import Any

from studies.pinn_ood import main
from studies.pinn_ood.cell import measure, without_rows
from studies.shared import commands


def cell(family: str, seed: str, size: str) -> dict[str, Any]:
    """A cell in this process."""
    return measure(family, int(seed), int(size))


def base(family: str, seed: str) -> dict[str, Any]:
    """What needs no rows, in this process."""
    return without_rows(family, int(seed))


if __name__ == "__main__":
    commands.run(main, cell=cell, base=base)
