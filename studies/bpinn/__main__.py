"""``python -m studies.bpinn``."""

from studies.bpinn import main
from studies.bpinn.cell import measure
from studies.shared import commands

if __name__ == "__main__":
    commands.run(main, cell=measure)
