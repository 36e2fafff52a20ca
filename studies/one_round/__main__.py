"""``python -m studies.one_round``."""

from studies.one_round import main
from studies.shared import commands

if __name__ == "__main__":
    commands.run(main)
