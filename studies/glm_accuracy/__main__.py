"""``python -m studies.glm_accuracy``."""

from typing import Any

from studies.glm_accuracy import main
from studies.glm_accuracy.cell import measure
from studies.shared import commands


def cell(name: str, seed: str, data: str | None = None) -> dict[str, Any]:
    """One cell in this process."""
    return measure(name, int(seed), data=data)


if __name__ == "__main__":
    commands.run(main, cell=cell)
