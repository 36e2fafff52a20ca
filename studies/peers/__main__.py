"""``python -m studies.peers``."""

from studies.peers import main
from studies.peers.cell import measure
from studies.shared import commands

if __name__ == "__main__":
    commands.run(main, cell=measure)
