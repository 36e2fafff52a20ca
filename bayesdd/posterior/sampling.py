"""``sample`` and ``predict``: draws of a posterior and of new outcomes; ``weighted``: the posterior as a Pyro model."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch

from bayesdd.data.columns import Columns
from bayesdd.data.distilled import ABOUT, Distilled, needed
from bayesdd.data.files import one_line
from bayesdd.density.checkpoint import Checkpoint
from bayesdd.density.density import Density, density_of
from bayesdd.inference import Draws, hmc
from bayesdd.numerics import arguments
from bayesdd.numerics.devices import resolve
from bayesdd.numerics.exclusive import exclusive
from bayesdd.numerics.refusal import Refusal, WrongType
from bayesdd.posterior import arviz
from bayesdd.posterior._log_likelihood import group_of, refuse_large, row_dimension
from bayesdd.posterior.convergence import ConvergenceWarning, troubles
from bayesdd.posterior.resampling import corrected as weighted_draws
from bayesdd.posterior.resampling import resampled
from bayesdd.posterior.weighting import weighted_model
from bayesdd.task.given import task_of
from bayesdd.task.new_rows import new_rows
from bayesdd.task.provenance import check
from bayesdd.task.task import Task

STREAM = 2**30  # added to predict's seed: noise from the stream of the draws themselves would be correlated with them


@exclusive
def sample(
    task: Task,
    distilled: Distilled | None = None,
    *,
    draws: int = 1000,
    chains: int = 4,
    seed: int = 0,
    method: Callable[..., Draws] | None = None,
    log_likelihood: bool = False,
    corrected: bool = False,
    device: str = "auto",
    checkpoint: str | os.PathLike[str] | None = None,
) -> Any:
    """Posterior draws as ArviZ inference data.

    Args:
        task: The task (with ``distilled``: the student).
        distilled: A distilled set; without it, all the task's rows.
        draws: Draws a chain.
        chains: Chains.
        seed: Seed.
        method: ``bayesdd.inference.hmc`` (default), ``nuts`` or ``laplace``.
        log_likelihood: Whether to add the group ``log_likelihood``: every real row of the task at every draw, which
            ``arviz.loo`` and ``compare`` need, 8 bytes each. ``bayesdd.log_likelihood`` adds it later, also in float32.
        corrected: With ``distilled``: draws are resampled by their importance weights exp(Delta), which takes one pass
            over the task's rows. Where ``khat`` is below 0.7 they are then draws of the posterior given all rows, exact
            up to Monte Carlo error, and so is what ``arviz.loo`` makes of them. Attributes of ``posterior`` say k-hat
            and the effective sample size of the weights.
        device: ``auto``, ``cpu`` or ``cuda``.
        checkpoint: A file for the sums of passes over all the task's rows: chains that were cut short, given the same
            file, go on where they stopped, to the same draws.

    Returns:
        ``InferenceData`` (ArviZ 0.23) or ``DataTree`` (1.x) with groups ``posterior`` (constrained, with global
        deterministic sites) and ``sample_stats``; for all rows in memory ``observed_data`` (outcomes, named by observed
        site, NaN where masked) and ``constant_data`` (covariates); for a distilled set ``distilled_data`` (its rows and
        ``weight``) and no real rows, which ``predict`` brings.

    Raises:
        Refusal: The set does not belong to the task, numbers of draws or chains are below 1, there is nothing to
            correct, or the log-likelihood would take more than 8 GiB.

    Warns:
        ConvergenceWarning: Chains disagree, stand still or diverge; the line names the sites.
        CertificateWarning: Draws were to be corrected, but k-hat is above 0.7.

    Example:
        >>> idata = bayesdd.sample(task, distilled, draws=500, chains=2, seed=0)
        >>> idata.posterior["w"].shape  # chains, draws, coefficients
        (2, 500, 2)
    """
    task, seed = task_of(task, "sample"), arguments.seed(seed, "sample")
    draws, chains = (arguments.whole(n, f"sample: {name}=", 1) for name, n in (("draws", draws), ("chains", chains)))
    if method is not None and not callable(method):
        raise WrongType(f"sample: method= takes a function, such as bayesdd.inference.laplace, got {method!r}")
    if taken := sorted({"chain", "draw"} & (task.sites.keys() | set(task.structure.deterministic))):
        raise Refusal(f"sample: site {taken[0]!r} of {task.name} has the name of an ArviZ dimension: rename the site.")
    if corrected and distilled is None:
        raise Refusal("sample(corrected=True) corrects draws of a distilled set to all rows: give distilled=.")
    if log_likelihood:
        refuse_large("sample(log_likelihood=True)", chains * draws, task.size)
    where, kept = resolve(device), None if checkpoint is None else Checkpoint(checkpoint, [task])
    if distilled is not None:
        distilled = check(needed(distilled, "sample"), task)
        density = density_of(task, distilled, where)
    else:
        density = _full(task, where, kept)
    found = (method or hmc)(density, draws=draws, chains=chains, seed=seed)
    attrs = _attributes(task, distilled, seed)
    if corrected:
        found, said = weighted_draws(found, _full(task, where, kept), density)
        attrs.update(said)
    found = resampled(found, seed)
    values = {
        name: value.reshape(chains, draws, *value.shape[1:]) for name, value in task.constrain(found.flat).items()
    }
    if trouble := troubles({name: values[name] for name in task.sites}, found.stats):
        warnings.warn(
            f"sample: {'; '.join(trouble)}: do not rely on these draws as they are; more draws, a "
            "reparameterised model or another method= may help",
            ConvergenceWarning,
            stacklevel=3,
        )
    groups = {"posterior": arviz.dataset(values, dims=task.dims, coords=task.coords, attrs=attrs)}
    if found.stats:
        groups["sample_stats"] = arviz.dataset(found.stats)
    if distilled is not None:
        rows, weight = distilled.hard()
        name = "distilled_weight" if "weight" in rows else "weight"
        lead = (_free("distilled_row", rows),)
        groups["distilled_data"] = _rows(task, {**rows, name: weight}, lead).assign_attrs(about=ABOUT)
    elif len(next(iter(task.data.values()))) == task.size:
        groups.update(_real_rows(task, task.data))
    if log_likelihood:
        groups["log_likelihood"] = group_of(task, found.flat, chains)
    return arviz.to_arviz(groups)


def _full(task: Task, device: torch.device, checkpoint: Checkpoint | None) -> Density:
    return Density([(task, task.rows, None)], device, spread=True, checkpoint=checkpoint)


def _attributes(task: Task, distilled: Distilled | None, seed: int) -> dict[str, Any]:
    attrs: dict[str, Any] = {"inference_library": "bayesdd", "task": task.name, "seed": seed, "rows": task.size}
    if distilled is not None:
        attrs.update(distilled.provenance, sample_seed=seed, size=len(distilled))
        if distilled.certificate is not None:
            attrs["certificate"] = distilled.certificate.to_dict()
    return attrs


def _real_rows(task: Task, columns: Columns) -> dict[str, Any]:
    """``observed_data``, named by observed site as predictions are, and ``constant_data``, named by column."""
    constant = {name: column for name, column in columns.items() if name not in task.outcomes}
    lead, groups = (row_dimension(task),), {}
    if len(constant) < len(columns) and (seen := _as_observed(task, task.observations(columns))):
        groups["observed_data"] = _rows(task, seen, lead)
    if constant:
        groups["constant_data"] = _rows(task, constant, lead)
    return groups


def _rows(task: Task, values: Columns, lead: tuple[str, ...]) -> Any:
    """A group of rows, with the names along their axes and the labels of codes."""
    found = arviz.dataset(values, lead, dims=task.dims, coords=task.coords)
    column_of = {o.name: o.column for o in task.structure.observed}
    for name in values:
        if labels := task.labels.get(column_of.get(name) or name):
            found[name].attrs["labels"] = json.dumps(labels)
    return found


@exclusive
def predict(task: Task, idata: Any, rows: Any, *, seed: int = 0) -> Any:
    """Posterior predictive draws at rows, new ones or the task's own; outcomes that are given are not looked at.

    ``idata.extend(predict(task, idata, task.data))`` (ArviZ 1.x: ``idata.update``), with the group ``log_likelihood``,
    is what ``plot_ppc``, ``loo_pit`` and ``plot_loo_pit`` take. Predictions at other rows are plotted by themselves.

    Args:
        task: The task.
        idata: What ``sample`` returned.
        rows: Columns of the rows, in whatever form a Task takes; columns that the model does not take are left out.
        seed: Seed.

    Returns:
        ArviZ inference data with groups ``posterior_predictive`` (dims chain, draw, row, ...), ``constant_data``
        (covariates) and, where outcomes are given, ``observed_data`` (named by observed site, NaN where masked).

    Raises:
        Refusal: A needed column is missing, one does not fit the task's, none is left to predict, or the predictions
            would take more than 8 GiB.

    Example:
        >>> new = bayesdd.predict(task, idata, {"x": [[1.0, 0.3]]})
        >>> new.posterior_predictive["y"].shape  # chains, draws, rows
        (2, 500, 1)
    """
    task, seed = task_of(task, "predict"), arguments.seed(seed, "predict")
    observed = task.outcomes
    wanted = [name for name in task.data if name not in observed]
    # A model without covariates takes no rows: it draws its own number of them.
    none = not wanted and isinstance(rows, Mapping) and not rows
    columns = {} if none else new_rows(task, rows, wanted, "predict", observed)
    given = {name: columns.pop(name) for name in observed & columns.keys()}
    values = arviz.draws_from(idata, task.sites)
    count = len(next(iter(columns.values()), "1"))
    refuse_large("predict", len(next(iter(values.values()))), count)
    try:
        drawn = task.simulate(columns, values, seed + STREAM)
    except (TypeError, AttributeError, RuntimeError) as error:
        raise Refusal(
            f"{task.name} cannot run without its observed columns {sorted(observed)}: give them the default None, and "
            f"where one outcome enters the mean of another, use what pyro.sample returns ({one_line(error)})."
        ) from error
    if not drawn:
        sources = sorted({source for o in task.structure.observed for source in o.sources})
        raise Refusal(
            f"predict: {task.name} observes all its sites at the new rows too, so that none is left to predict: give "
            f"the argument of the outcome{f', one of {sources},' if sources else ''} the default None, and obs=None "
            "where it is None."
        )
    chains, drawn = idata.posterior.sizes["chain"], _as_observed(task, drawn)
    predicted = {name: value.reshape(chains, -1, *value.shape[1:]) for name, value in drawn.items()}
    row = row_dimension(task)
    dims = {name: [row, *(f"{name}_dim_{i}" for i in range(value.dim() - 3))] for name, value in predicted.items()}
    dims |= {name: [row, *task.dims[name]] for name in predicted if name in task.dims}
    made = arviz.dataset(predicted, dims=dims, coords=task.coords)
    groups = {"posterior_predictive": arviz.labelled(made, idata.posterior)}
    if columns or given:
        groups.update(_real_rows(task, {**columns, **given}))
    return arviz.to_arviz(groups)


def _as_observed(task: Task, values: Columns) -> Columns:
    """Discrete sites' values as integers, which ArviZ plots as counts; as they are where missing or fractional."""
    discrete = {o.name for o in task.structure.observed if o.discrete}
    return {n: v.long() if n in discrete and bool((v == v.floor()).all()) else v for n, v in values.items()}


def _free(name: str, columns: Columns) -> str:
    while name in columns:
        name += "_"
    return name


@exclusive
def weighted(task: Task, distilled: Distilled) -> Callable[[], Any]:
    """A Pyro model of no arguments on the distilled rows, weights inside, for any Pyro inference.

    Every observed site in the row plate is scaled by its row's weight; the prior is not (``poutine.scale`` around the
    whole model would scale it too). Rows are cast to the process's default dtype when it runs.

    Args:
        task: The task that the rows belong to.
        distilled: The distilled set.

    Example:
        >>> from pyro.infer import MCMC, NUTS
        >>> nuts = MCMC(NUTS(bayesdd.weighted(task, distilled)), 20, 20, disable_progbar=True)
        >>> nuts.run()
    """
    rows, weight = check(needed(distilled, "weighted"), task_of(task, "weighted")).hard()
    return weighted_model(task.model, rows, weight, task.program.plate)
