"""``python -m studies.dbn_merge``."""

from typing import Any

from studies.dbn_merge import main
from studies.dbn_merge.cell import measure
from studies.dbn_merge.records import Settings
from studies.shared import commands


def cell(kind: str, slices: str, seed: str, *others: str) -> dict[str, Any]:
    """One cell in this process; settings other than the defaults as ``NAME=VALUE``."""
    settings: dict[str, Any] = {}
    for name, _, value in (other.partition("=") for other in others):
        settings[name] = type(getattr(Settings, name))(value)
    return measure(kind, int(slices), int(seed), Settings(**settings))


if __name__ == "__main__":
    commands.run(main, cell=cell)
