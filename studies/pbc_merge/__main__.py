"""``python -m studies.pbc_merge``."""

from typing import Any

from studies.pbc_merge import main
from studies.pbc_merge.cell import measure
from studies.shared import commands


def cell(name: str, picture: str) -> dict[str, Any]:
    """One cell in this process."""
    return measure(name, picture=picture)


if __name__ == "__main__":
    commands.run(main, cell=cell)
