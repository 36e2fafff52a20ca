"""``python -m studies.contract``."""

from studies.contract import main
from studies.contract.cell import measure
from studies.shared import commands

if __name__ == "__main__":
    commands.run(main, cell=measure)
