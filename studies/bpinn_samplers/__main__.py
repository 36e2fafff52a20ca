"""``python -m studies.bpinn_samplers``."""

from studies.bpinn_samplers import main
from studies.bpinn_samplers.cell import measure
from studies.shared import commands

if __name__ == "__main__":
    commands.run(main, cell=measure)
