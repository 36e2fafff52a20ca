"""``python -m studies.dbn_settings``."""

from studies.dbn_settings import cell, main
from studies.shared import commands

if __name__ == "__main__":
    commands.run(main, cell=cell.measure)
