"""``log_likelihood``: of every real row at every draw, for leave-one-out and model comparison."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from bayesdd.density.passes import BLOCK, CACHE_CELLS
from bayesdd.density.passes import MEMORY as BLOCK_MEMORY
from bayesdd.numerics.devices import resolve
from bayesdd.numerics.refusal import Refusal
from bayesdd.posterior import arviz
from bayesdd.task.task import Task

MEMORY = 2**33  # bytes that a group may take: 8 GiB, which a workstation has

Precision = Literal["float64", "float32"]


def log_likelihood(
    task: Task, idata: Any, *, dtype: Precision = "float64", device: str = "auto", memory: int = MEMORY
) -> Any:
    """The inference data with a group ``log_likelihood`` added: every real row of the task at every draw.

    The draws may come from all rows, from a distilled set, or from any tool whose variables are the model's sites. Then
    ``arviz.loo(idata)`` takes them as draws of the posterior given all rows. Draws of a distilled set are off by what
    its certificate says; ``sample(..., corrected=True)`` makes the result exact up to Monte Carlo error. To thin, thin
    the draws: ``idata.sel(draw=slice(None, None, 10))``.

    Args:
        task: The task, whose rows may be on disk: they are read block by block.
        idata: What ``sample`` or ArviZ made, with a group ``posterior``.
        dtype: ``float64`` or ``float32``, which takes half of the memory and rounds to seven digits.
        device: ``auto``, ``cpu`` or ``cuda``.
        memory: Bytes that the group may take.

    Returns:
        New inference data, groups shared with the old. The variable has the observed site's name and dims (chain, draw,
        row), nats; with several observed sites it is called ``joint`` and holds their sum, since cross-validation
        leaves out rows, not sites.

    Raises:
        Refusal: The draws are of another model, the group is larger than ``memory``, or ``dtype`` is another.

    Example:
        >>> idata = bayesdd.log_likelihood(task, idata)
        >>> idata.log_likelihood["y"].shape  # chains, draws, all real rows
        (2, 500, 200)
    """
    if dtype not in ("float64", "float32"):
        raise Refusal(f"log_likelihood takes dtype='float64' or 'float32', got {dtype!r}.")
    values = arviz.draws_from(idata, task.sites)
    posterior = idata.posterior
    chains, draws = posterior.sizes["chain"], posterior.sizes["draw"]
    refuse_large("log_likelihood", chains * draws, task.size, dtype, memory)
    group = group_of(task, task.unconstrain(values).to(resolve(device)), chains, dtype)
    return arviz.with_group(idata, "log_likelihood", arviz.labelled(group, posterior))


def group_of(task: Task, draws: Tensor, chains: int, dtype: Precision = "float64") -> xr.Dataset:
    """The group at unconstrained draws ``(chains * draws, P)``, on their device."""
    task.refuse_weights("log_likelihood")
    found = np.empty((len(draws), task.size), dtype)
    rows = task.rows.on(draws.device)
    step = min(rows.size, rows.most, BLOCK)
    blocks = rows.blocks(0, rows.size, step, pin=False)
    for start, piece in zip(range(0, rows.size, step), blocks, strict=True):
        if rows.unseen(start, start + step):
            task.check(piece, start)
        block = {name: column.to(draws.device) for name, column in piece.items()}
        cells = min(CACHE_CELLS, int(BLOCK_MEMORY / task.bytes_per_cell))
        many = max(1, cells // len(next(iter(block.values()))))
        with torch.no_grad():
            for first in range(0, len(draws), many):
                values = task.log_likelihood(block, draws[first : first + many])
                found[first : first + many, start : start + step] = values.cpu().numpy()
    if bool(np.isnan(found).any()):
        place = int(np.isnan(found).any(0).argmax())
        raise Refusal(f"{task.name}: the log-likelihood of row {place} is NaN at some draws; drop the row.")
    name = variable(task)
    return arviz.dataset({name: found.reshape(chains, -1, task.size)}, dims={name: [row_dimension(task)]})


def variable(task: Task) -> str:
    """The observed site's name, ``joint`` where there are several."""
    names = [observation.name for observation in task.structure.observed]
    return names[0] if len(names) == 1 else "joint"


def row_dimension(task: Task) -> str:
    """Name of the real rows' dimension, the same in all groups, other than that of any column or site."""
    taken = {*task.data, *task.sites, *(observation.name for observation in task.structure.observed)}
    name = "row"
    while name in taken:
        name += "_"
    return name


def refuse_large(what: str, draws: int, rows: int, dtype: Precision = "float64", memory: int = MEMORY) -> None:
    """Refuses a group that would not fit.

    Raises:
        Refusal: It takes more bytes than ``memory``.
    """
    wanted, gigabyte = draws * rows * np.dtype(dtype).itemsize, 2**30
    if wanted > memory:
        smaller = ", or dtype='float32'" if what == "log_likelihood" and dtype == "float64" else ""
        raise Refusal(
            f"{what}: {rows:,} rows at {draws:,} draws take {wanted / gigabyte:.3g} GiB, more than the "
            f"{memory / gigabyte:.3g} allowed: take fewer draws, as by idata.sel(draw=slice(None, None, 10)){smaller}."
        )
