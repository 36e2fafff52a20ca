r"""Simulation-based calibration of a task, and posterior calibration given observed rows.

A truth is drawn, rows are simulated from it, their posterior is drawn, and the truth is ranked among the draws. If
model, sampler and distillation are right, ranks are uniform:

.. math:: \theta^* \sim p(\theta), \quad y^* \sim p(y \mid \theta^*), \quad
    \mathrm{rank}(\theta^*; \theta_1, \dots, \theta_L \sim p(\theta \mid y^*)) \sim \mathrm{Uniform}\{0, \dots, L\}

With observed rows the truth comes from their posterior, and the posterior is that of observed and simulated rows
together: the check then says how the sampler does where these data lead, not all over the prior.

Cost: one posterior a replication, and one distillation where ``size`` is given.

Source: Talts, Betancourt, Simpson, Vehtari & Gelman, "Validating Bayesian inference algorithms with simulation-based
calibration", 2018; Saeilynoja, Schmitt, Buerkner & Vehtari, "Posterior SBC", 2025.
"""

from __future__ import annotations

import itertools
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy.stats import chisquare
from torch import Tensor

from bayesdd.calibration.histograms import histograms
from bayesdd.certificate.verdict import draw_distilled
from bayesdd.data.certificate import CertificateWarning
from bayesdd.data.columns import Columns, DataNote, read
from bayesdd.density.density import Density, density_of
from bayesdd.distillation import distill
from bayesdd.inference import hmc
from bayesdd.numerics.exclusive import exclusive
from bayesdd.numerics.refusal import MissingPackage, Refusal
from bayesdd.task.task import Task

DRAWS = 99  # of each posterior, independent: ranks 0 to 99
PROPOSED = 1000  # weighted draws from which these are taken
BINS, IN_A_BIN = 20, 10  # most bins of the test of uniformity, and fewest ranks that are expected in one
MOST_FAILED = 0.1  # share of replications without a finite posterior from which nothing is said


@dataclass(frozen=True, eq=False)
class Calibration:
    """Ranks of the truth among posterior draws.

    Attributes:
        ranks: One row a replication, one column a parameter; 0 to ``draws``.
        draws: Posterior draws of a replication.
        failed: Replications left out, because the simulated rows had no finite posterior.
    """

    ranks: pd.DataFrame
    draws: int
    failed: int

    @property
    def p_value(self) -> pd.Series:
        """Probability of ranks as uneven as these, by parameter (chi-square); among K parameters the least is K p."""
        bins = max(2, min(BINS, len(self.ranks) // IN_A_BIN))
        edges = np.linspace(-0.5, self.draws + 0.5, bins + 1)
        width = np.diff(np.floor(edges + 0.5)).clip(1)  # ranks in each bin
        expected = len(self.ranks) * width / width.sum()
        found = {name: chisquare(np.histogram(self.ranks[name], edges)[0], expected).pvalue for name in self.ranks}
        return pd.Series(found, name="p_value")

    def plot(self) -> Any:
        """Histograms of the ranks with the band in which 95 % of the bars of a calibrated posterior lie.

        Returns:
            The matplotlib figure.

        Raises:
            MissingPackage: matplotlib is not installed.
        """
        try:
            import matplotlib  # noqa: F401
        except ImportError as error:
            raise MissingPackage("Calibration.plot needs matplotlib: pip install 'bayesdd[plots]'") from error
        return histograms(self.ranks, self.draws, self.p_value, "#0072b2", "0.88")


@exclusive
def calibrate(
    task: Task, *, replications: int = 200, seed: int = 0, size: int | None = None, observed: Any = None
) -> Calibration:
    """Simulation-based calibration: ranks of true parameters among draws of the posteriors of simulated rows.

    Args:
        task: The task; outcomes are simulated at its rows' other columns.
        replications: Simulated data sets.
        seed: Seed.
        size: Distil every data set to so many rows first, and rank among draws of that posterior.
        observed: Rows, as for a Task, whose posterior truths are drawn from (posterior calibration); None: the prior.

    Returns:
        Ranks, p-values of uniformity by parameter, and a plot.

    Raises:
        Refusal: An observed site observes no column of its own, rows stay on disk, or more than a tenth of the
            simulated data sets have no finite posterior.

    Example:
        >>> found = bayesdd.calibrate(task, replications=20)
        >>> found.ranks.shape  # replications, parameters
        (20, 2)
    """
    if isinstance(replications, bool) or not isinstance(replications, int) or replications < 20:
        raise Refusal(f"calibrate needs at least 20 replications to tell anything, got {replications!r}.")
    columns = _simulated_columns(task)
    seen = None if observed is None else _rows_like(task, read(observed))
    truths = _truths(task, seen, replications, seed)
    values = task.constrain(truths)
    ranks, failed = [], 0
    for k in range(replications):
        one = {name: value[k : k + 1] for name, value in values.items()}
        rows = _simulate(task, columns, {name: one[name] for name in task.sites}, seed + 7919 * (k + 1))
        rows = rows if seen is None else {name: torch.cat([seen[name], rows[name]]) for name in rows}
        drawn = _draws(task, rows, size, seed + k)
        if drawn is None:
            failed += 1
            continue
        ranks.append(_ranks({name: value[0] for name, value in one.items()}, task.constrain(drawn)))
    if failed > MOST_FAILED * replications:
        raise Refusal(
            f"calibrate: {failed} of {replications} data sets simulated from {task.name} have no finite posterior: the "
            "prior allows outcomes that overflow. Narrow it, or give observed= rows, whose posterior takes its place."
        )
    return Calibration(pd.DataFrame(ranks), DRAWS, failed)


def _simulated_columns(task: Task) -> dict[str, str]:
    """Observed site -> its column."""
    task.refuse_weights("calibrate")
    if len(next(iter(task.data.values()))) < task.size:
        raise Refusal(f"calibrate needs rows in memory, but those of {task.name} stay on disk: give some of them.")
    for site in task.structure.observed:
        if site.column is None:
            raise Refusal(
                f"calibrate cannot simulate site {site.name!r} of {task.name}, which observes no column of its own "
                "(pyro.factor, or a value computed from columns)."
            )
    return {site.name: site.column for site in task.structure.observed if site.column is not None}


def _rows_like(task: Task, rows: Columns) -> Columns:
    if missing := task.data.keys() - rows.keys():
        raise Refusal(f"calibrate(observed=...) lacks the column {min(missing)!r} of {task.name}.")
    return {name: rows[name].to(column.dtype) for name, column in task.data.items()}


def _truths(task: Task, seen: Columns | None, count: int, seed: int) -> Tensor:
    """True parameters, unconstrained, ``(count, P)``: of the prior, or of the posterior of observed rows."""
    if seen is None:
        return task.prior_draws(count, seed)
    return hmc(Density([(task, seen, None)]), draws=1, chains=count, seed=seed).flat


def _simulate(task: Task, columns: dict[str, str], values: Columns, seed: int) -> Columns:
    given = {name: column for name, column in task.data.items() if name not in columns.values()}
    if not given:
        raise Refusal(
            f"calibrate cannot simulate {task.name}: without its outcomes no column says how many rows there are. Add "
            "one that does, such as row numbers, to the model's arguments."
        )
    made = task.simulate(given, values, seed)
    found = {columns[site]: value[0].to(task.data[columns[site]].dtype) for site, value in made.items()}
    return {name: found[name] if name in found else given[name] for name in task.data}


def _draws(task: Task, rows: Columns, size: int | None, seed: int) -> Tensor | None:
    """Independent draws of the posterior of rows, ``(DRAWS, P)``; None where it is not finite."""
    if not all(bool(torch.isfinite(column.double()).all() | column.isnan().any()) for column in rows.values()):
        return None
    density = Density([(task, rows, None)])
    if size is not None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", CertificateWarning)
            warnings.simplefilter("ignore", DataNote)
            distilled = distill(task.with_data(rows), size, seed=seed, progress=False)
        density = density_of(task, distilled, "cpu")
    found = draw_distilled(density, seed, count=PROPOSED)
    weight = torch.softmax(found.flat_log_weight, 0)
    picked = torch.multinomial(weight, DRAWS, generator=torch.Generator().manual_seed(seed))
    return found.flat[picked] if bool(torch.isfinite(weight).all()) else None


def _ranks(truth: Columns, draws: Columns) -> dict[str, int]:
    """Number of draws below the truth, by parameter."""
    found = {}
    for name, value in truth.items():
        below = (draws[name] < value).sum(0)
        for place in itertools.product(*map(range, value.shape)):
            label = f"{name}[{','.join(map(str, place))}]" if place else name
            found[label] = int(below[place])
    return found
