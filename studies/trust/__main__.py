"""``python -m studies.trust``."""

from studies.shared import commands
from studies.trust import cell, main

if __name__ == "__main__":
    commands.run(main, cell=cell)
