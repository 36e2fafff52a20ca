"""``python -m studies.contract``."""

from studies.contract import main, references
from studies.contract.cell import measure
from studies.shared import commands

if __name__ == "__main__":
    commands.run(main, cell=measure, reference=references.measure)
