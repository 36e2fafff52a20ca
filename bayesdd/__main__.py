"""`python -m bayesdd`: the command line."""

import sys

from bayesdd.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
