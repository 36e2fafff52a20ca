"""``python -m studies.edges``."""

from studies.edges import baselines, main, orders, posterior, unknown
from studies.shared import commands

if __name__ == "__main__":
    commands.run(
        main,
        posterior=posterior.measure,
        baselines=baselines.measure,
        orders=orders.measure,
        unknown=unknown.measure,
    )
