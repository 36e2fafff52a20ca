"""``python -m studies.speed``."""

from studies.shared import commands
from studies.speed import main
from studies.speed.cell import cell

if __name__ == "__main__":
    commands.run(main, cell=cell)
