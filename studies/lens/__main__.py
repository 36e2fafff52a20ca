"""``python -m studies.lens``."""

from studies.lens import main
from studies.lens.workers import work
from studies.shared import commands

if __name__ == "__main__":
    commands.run(main, worker=work)
