"""``python -m studies.equations``."""

from studies.equations import main
from studies.equations.cell import measure
from studies.shared import commands

if __name__ == "__main__":
    commands.run(main, cell=measure)
