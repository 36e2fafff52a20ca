"""``python -m studies.pinn_ood``."""

import json
from pathlib import Path
from typing import Any

from studies.pinn_ood import main
from studies.pinn_ood.cell import measure, target
from studies.shared import commands


def cell(family: str, seed: str, size: str = "", teacher: str = "") -> dict[str, Any]:
    """A target, or with a size and the target's file one set of rows, in this process."""
    if not size:
        return target(family, int(seed))
    return measure(family, int(seed), int(size), json.loads(Path(teacher).read_text()))


if __name__ == "__main__":
    commands.run(main, cell=cell)
