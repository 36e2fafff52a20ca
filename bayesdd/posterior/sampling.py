"""``sample`` and ``predict``: draws of a posterior and of new outcomes; ``weighted``: the posterior as a Pyro model."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from typing import Any

import torch

from bayesdd.data.columns import Columns
from bayesdd.data.distilled import Distilled, needed
from bayesdd.data.files import one_line
from bayesdd.density.density import Density, density_of
from bayesdd.inference import Draws, hmc
from bayesdd.numerics import arguments
from bayesdd.numerics.devices import resolve
from bayesdd.numerics.refusal import Refusal, WrongType
from bayesdd.posterior import arviz
from bayesdd.posterior.weighting import weighted_model
from bayesdd.task.given import task_of
from bayesdd.task.new_rows import new_rows
from bayesdd.task.provenance import check
from bayesdd.task.task import Task

LOG_LIKELIHOOD_CELLS = 2_000_000  # draws x rows kept in the log_likelihood group: 16 MB


def sample(
    task: Task,
    distilled: Distilled | None = None,
    *,
    draws: int = 1000,
    chains: int = 4,
    seed: int = 0,
    method: Callable[..., Draws] | None = None,
    device: str = "auto",
) -> Any:
    """Posterior draws as ArviZ inference data.

    Args:
        task: The task (with ``distilled``: the student).
        distilled: A distilled set; without it, all the task's rows.
        draws: Draws a chain.
        chains: Chains.
        seed: Seed.
        method: ``bayesdd.inference.hmc`` (default), ``nuts`` or ``laplace``.
        device: ``auto``, ``cpu`` or ``cuda``.

    Returns:
        ``InferenceData`` (ArviZ 0.23) or ``DataTree`` (1.x) with groups ``posterior`` (constrained, with global
        deterministic sites), ``sample_stats``, ``observed_data`` and ``constant_data`` (the rows, distilled ones with
        ``weight``) and, for full rows only, ``log_likelihood`` thinned to a bounded size. Rows that stay on disk are in
        none of them.

    Raises:
        Refusal: The set does not belong to the task, or numbers of draws or chains are below 1.
    """
    task, seed = task_of(task, "sample"), arguments.seed(seed, "sample")
    draws, chains = (arguments.whole(n, f"sample: {name}=", 1) for name, n in (("draws", draws), ("chains", chains)))
    if method is not None and not callable(method):
        raise WrongType(f"sample: method= takes a function, such as bayesdd.inference.laplace, got {method!r}")
    if taken := sorted({"chain", "draw"} & (task.sites.keys() | set(task.structure.deterministic))):
        raise Refusal(f"sample: site {taken[0]!r} of {task.name} has the name of an ArviZ dimension: rename the site.")
    where = resolve(device)
    if distilled is not None:
        distilled = check(needed(distilled, "sample"), task)
        density = density_of(task, distilled, where)
    else:
        density = Density([(task, task.rows, None)], where, spread=True)
    found = _resampled((method or hmc)(density, draws=draws, chains=chains, seed=seed), seed)
    values = {
        name: value.reshape(chains, draws, *value.shape[1:]) for name, value in task.constrain(found.flat).items()
    }
    attrs = _attributes(task, distilled, seed)
    groups = {"posterior": arviz.dataset(values, dims=task.dims, coords=task.coords, attrs=attrs)}
    if found.stats:
        groups["sample_stats"] = arviz.dataset(found.stats)
    whole = len(next(iter(task.data.values()))) == task.size
    rows, weight = (task.data if whole else {}, None) if distilled is None else distilled.hard()
    observed = {o.column for o in task.structure.observed if o.column}
    seen = {name: column for name, column in rows.items() if name in observed}
    constant = {name: column for name, column in rows.items() if name not in observed}
    if weight is not None:
        constant["distilled_weight" if "weight" in rows else "weight"] = weight
    for group, columns in (("observed_data", seen), ("constant_data", constant)):
        if columns:
            groups[group] = _rows(task, columns)
    if distilled is None and whole:
        groups["log_likelihood"] = _log_likelihood(task, found)
    return arviz.to_arviz(groups)


def _resampled(found: Draws, seed: int) -> Draws:
    """Importance-weighted draws resampled to equal weight, chain by chain; draws without weights as they are."""
    if found.log_weight is None:
        return found
    generator = torch.Generator().manual_seed(seed + 1)
    probability = torch.softmax(found.log_weight.cpu(), 1)
    picked = torch.multinomial(probability, probability.shape[1], replacement=True, generator=generator)
    chain = torch.arange(len(picked))[:, None]
    return Draws(found.values[chain, picked.to(found.values.device)], None, found.stats)


def _attributes(task: Task, distilled: Distilled | None, seed: int) -> dict[str, Any]:
    attrs: dict[str, Any] = {"inference_library": "bayesdd", "task": task.name, "seed": seed, "rows": task.size}
    if distilled is not None:
        attrs.update(distilled.provenance, sample_seed=seed, size=len(distilled))
        if distilled.certificate is not None:
            attrs["certificate"] = distilled.certificate.to_dict()
    return attrs


def _log_likelihood(task: Task, found: Draws) -> Any:
    """Log-likelihood by row at every k-th draw, so that the group stays small with many rows."""
    chains, draws = found.values.shape[:2]
    step = max(1, math.ceil(chains * draws * task.size / LOG_LIKELIHOOD_CELLS))
    every = torch.arange(0, draws, min(step, draws))
    values = found.values[:, every].flatten(0, 1)
    with torch.no_grad():
        rows = {name: column.to(values.device) for name, column in task.data.items()}
        by_row = torch.cat([task.log_likelihood(rows, some) for some in values.split(max(1, 2**19 // task.size))])
    names = [observation.name for observation in task.structure.observed]
    name = names[0] if len(names) == 1 else "joint"  # cross-validation leaves out rows, not sites
    data = arviz.dataset({name: by_row.reshape(chains, len(every), -1)}, dims={name: ["row"]})
    return data.assign_coords(draw=every.numpy())


def predict(task: Task, idata: Any, rows: Any, *, seed: int = 0) -> Any:
    """Posterior predictive draws at new rows, observed columns left out.

    Args:
        task: The task.
        idata: What ``sample`` returned.
        rows: Columns of the new rows: mapping, data frame, dataset or path, as for a Task.
        seed: Seed.

    Returns:
        ArviZ inference data with groups ``posterior_predictive`` (dims chain, draw, row, ...) and ``constant_data``.

    Raises:
        Refusal: A needed column is missing or none is left to predict.
    """
    task, seed = task_of(task, "predict"), arguments.seed(seed, "predict")
    observed = {o.column for o in task.structure.observed if o.column}
    wanted = [name for name in task.data if name not in observed]
    # A model without covariates takes no rows: it draws its own number of them.
    none = not wanted and isinstance(rows, Mapping) and not rows
    columns = {} if none else new_rows(task, rows, wanted, "predict")
    values = arviz.draws_from(idata, task.sites)
    try:
        drawn = task.simulate(columns, values, seed)
    except (TypeError, AttributeError, RuntimeError) as error:
        raise Refusal(
            f"{task.name} cannot run without its observed columns {sorted(observed)}: give them the default None "
            f"({one_line(error)})."
        ) from error
    chains = idata.posterior.sizes["chain"]
    predicted = {name: value.reshape(chains, -1, *value.shape[1:]) for name, value in drawn.items()}
    dims = {name: ["row", *(f"{name}_dim_{i}" for i in range(value.dim() - 3))] for name, value in predicted.items()}
    dims |= {name: ["row", *task.dims[name]] for name in predicted if name in task.dims}
    groups = {"posterior_predictive": arviz.dataset(predicted, dims=dims, coords=task.coords)}
    if columns:
        groups["constant_data"] = _rows(task, columns)
    return arviz.to_arviz(groups)


def _rows(task: Task, columns: Columns) -> Any:
    """A group of rows, with the names along their axes and the labels of codes."""
    found = arviz.dataset(columns, lead=(_row(columns),), dims=task.dims, coords=task.coords)
    for name, labels in task.labels.items():
        if name in found:
            found[name].attrs["labels"] = json.dumps(labels)
    return found


def _row(columns: Columns) -> str:
    """Name of the rows' dimension, other than that of any column."""
    name = "row"
    while name in columns:
        name += "_"
    return name


def weighted(task: Task, distilled: Distilled) -> Callable[[], Any]:
    """A Pyro model of no arguments on the distilled rows, weights inside, for any Pyro inference.

    Every observed site in the row plate is scaled by its row's weight; the prior is not (``poutine.scale`` around the
    whole model would scale it too). Rows are cast to the process's default dtype when it runs.

    Args:
        task: The task that the rows belong to.
        distilled: The distilled set.
    """
    rows, weight = check(needed(distilled, "weighted"), task_of(task, "weighted")).hard()
    return weighted_model(task.model, rows, weight, task.plate)
