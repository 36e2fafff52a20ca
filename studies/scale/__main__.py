"""``python -m studies.scale``."""

from studies.scale import main
from studies.scale.cell import cell, one_rank
from studies.shared import commands

if __name__ == "__main__":
    commands.run(main, cell=cell, rank=one_rank)
