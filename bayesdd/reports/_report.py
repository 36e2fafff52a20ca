"""The report: a set's verdict, and what stands behind it, on one HTML page that needs nothing else."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import torch

from bayesdd.data.certificate import Certificate
from bayesdd.data.distilled import Distilled
from bayesdd.data.files import replacing, vacant
from bayesdd.density.density import Density, density_of
from bayesdd.numerics import arguments
from bayesdd.numerics.exclusive import exclusive
from bayesdd.numerics.refusal import MissingPackage, Refusal
from bayesdd.posterior import ConvergenceWarning, sample
from bayesdd.posterior.arviz import draws_from
from bayesdd.reports import sections
from bayesdd.reports.comparison import compared
from bayesdd.reports.elements import belonging
from bayesdd.task.task import Task

CHAINS = 4
STREAM = 7001  # added to the seed: equal streams of random numbers make two posteriors look closer than they are
WEIGHED = 1000  # draws whose importance weights are shown: one sweep of all rows


@exclusive
def report(
    task: Task,
    distilled: Distilled,
    path: str | os.PathLike[str] = "report.html",
    *,
    full: Any = None,
    draws: int = 300,
    seed: int = 0,
) -> Path:
    """Writes one HTML page: the verdict, both posteriors, the rows, how it came about and how to repeat it.

    The page holds its figures and loads nothing. Its figures show real rows: who may not see those may not see it.

    Args:
        task: The task that the rows belong to, with all real rows.
        distilled: A distilled set with a certificate.
        path: File to write (.html), which must not exist yet.
        full: ArviZ inference data of the full posterior, where the task's own rows are not all there is (several
            sources), or where drawing takes long and was done before; default draws given the task's rows.
        draws: Draws a chain, of four chains, from each posterior.
        seed: Seed of the draws.

    Returns:
        The path of the page.

    Raises:
        Refusal: The set has no certificate or belongs to another task, or numbers of draws do not fit.
        OSError: The file exists, or cannot be written.
        MissingPackage: matplotlib or jinja2 is not installed.

    Example:
        >>> bayesdd.report(task, distilled, "report.html", full=full, draws=500).name
        'report.html'
    """
    environment = _environment()
    task, distilled = belonging(task, distilled, "report")
    draws, seed = arguments.whole(draws, "report: draws=", 4), arguments.seed(seed, "report")
    if distilled.certificate is None:
        raise Refusal(
            "report: this set has no certificate yet: give replace(distilled, certificate=bayesdd.certify(...))"
        )
    if Path(path).suffix != ".html":
        raise Refusal(f"report {path}: an HTML page is written; end its name in .html")
    path = vacant(path)
    page = sections.head(task, distilled)
    if isinstance(distilled.certificate, Certificate):
        page |= _posteriors(task, distilled, full, draws, seed)
    page |= sections.rows(task, distilled)
    page |= sections.origin(task, distilled, draws, seed)
    text = environment.get_template("page.html.j2").render(page)
    with replacing(path) as part:
        part.write_text(text, encoding="utf-8")
    return path


def _posteriors(task: Task, distilled: Distilled, full: Any, draws: int, seed: int) -> dict[str, Any]:
    """What the page shows of both posteriors."""
    notes: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ConvergenceWarning)
        settings: dict[str, Any] = {"draws": draws, "chains": CHAINS}
        small = sample(task, distilled, seed=seed + STREAM, **settings)
        full = sample(task, seed=seed, **settings) if full is None else full
    for one in caught:
        if issubclass(one.category, ConvergenceWarning):
            notes.append(str(one.message))
        else:
            warnings.warn_explicit(one.message, one.category, one.filename, one.lineno)
    table = compared(full, small, "report")
    values = {name: value[:: max(1, len(value) // WEIGHED)] for name, value in draws_from(small, task.sites).items()}
    flat = task.unconstrain(values)
    with torch.no_grad():
        everything = Density([(task, task.rows, None)], torch.device("cpu"), spread=True)
        ratio = everything.sweep(flat) - density_of(task, distilled, torch.device("cpu")).sweep(flat)
    return sections.posteriors(full, small, table, ratio, notes)


def _environment() -> Any:
    """Where pages come from, everything that is filled in escaped."""
    try:
        import jinja2
        import matplotlib  # noqa: F401
    except ImportError as error:
        missing = (error.name or "jinja2").partition(".")[0]
        raise MissingPackage(f"report needs {missing}: pip install 'bayesdd[plots]'") from error
    return jinja2.Environment(
        loader=jinja2.PackageLoader("bayesdd.reports", "."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
