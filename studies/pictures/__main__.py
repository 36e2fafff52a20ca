"""``python -m studies.pictures``."""

from studies.pictures import main
from studies.shared import commands

if __name__ == "__main__":
    commands.run(main)
