"""What is true of a distilled set: the model evaluated by Pyro alone, one draw at a time.

Of bayesdd only the draws of both posteriors are used, and their R-hat is computed. The densities are Pyro's: the model
is run at each draw and its observed sites are summed, weights by hand. Posteriors of one or two parameters are
integrated on a grid instead, conjugate ones compared by their formulas.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import pyro
import torch
from torch import Tensor
from torch.distributions import biject_to

import bayesdd
from models import gaussian_mean
from studies.contract.form import Form
from studies.shared.bridge import bridge
from studies.shared.true_kl import Array

CHAINS, DRAWS, KEPT = 4, 1000, 200  # draws a chain, and those of them at which Pyro runs the model
MORE = 5, 25  # times as many draws a chain where they have not converged
CHECKED = 20  # prior draws at which bayesdd's log-likelihoods are compared with Pyro's
NODES, REACH = 61, 7.5  # nodes a side of the grid, from minus to plus this many sds: a quarter of an sd apart
RHAT = 1.05  # of any parameter, above which the chains do not count as converged; hierarchical scales mix slowly

Columns = dict[str, Tensor]
Weighted = tuple[Columns, Tensor]  # rows and their weights


def truth(form: Form, task: bayesdd.Task, distilled: bayesdd.Distilled, seed: int) -> dict[str, Any]:
    """Both KLs, nats: ``reverse``, ``forward``, their ``_se`` where sampled, ``how``, and the draws' ``rhat``."""
    if form.exact is not None:
        rows = {name: column.numpy() for name, column in task.data.items()}
        full = form.exact(**rows)
        small = form.exact(**distilled.data, weight=distilled.weight)
        forward, reverse = float(gaussian_mean.kl(full, small)), float(gaussian_mean.kl(small, full))
        return {"how": "closed form", "reverse": reverse, "forward": forward}
    sets = [(task.data, torch.ones(task.size, dtype=torch.float64)), (distilled.data, distilled.weight)]
    for count in (DRAWS, *(more * DRAWS for more in MORE)):
        draws = [_draws(task, chosen, seed, count) for chosen in (None, distilled)]
        rhat = max(_rhat(values) for values in draws)
        if rhat <= RHAT:
            break
    thin = [{name: value[:, :: count // KEPT] for name, value in values.items()} for values in draws]
    if task.dim <= 2:
        return {"how": "grid", "rhat": rhat} | _quadrature(task.model, sets, thin)
    ratio = []
    for values in thin:
        flat = {name: torch.as_tensor(value).flatten(0, 1) for name, value in values.items()}
        full, small = (_log_likelihood(task.model, *chosen, flat) for chosen in sets)
        ratio.append((full - small).reshape(CHAINS, -1))
    found = bridge(*ratio)
    return {
        "how": "bridge",
        "rhat": rhat,
        "reverse": found.reverse,
        "reverse_se": found.reverse_se,
        "forward": found.forward,
        "forward_se": found.forward_se,
    }


def density_error(task: bayesdd.Task, rows: Columns, seed: int) -> float:
    """Largest relative difference between the task's log-likelihoods, summed over rows, and Pyro's, at prior draws."""
    draws = task.prior_draws(CHECKED, seed)
    with torch.no_grad():
        ours = task.log_likelihood(rows, draws).sum(1).numpy()
    values = {name: value for name, value in task.constrain(draws).items() if name in task.sites}
    weight = torch.ones(len(next(iter(rows.values()))), dtype=torch.float64)
    theirs = _log_likelihood(task.model, rows, weight, values)
    finite = np.isfinite(ours) & np.isfinite(theirs)
    return float((np.abs(ours - theirs)[finite] / (1 + np.abs(theirs[finite]))).max())


def _draws(task: bayesdd.Task, distilled: bayesdd.Distilled | None, seed: int, count: int) -> dict[str, Array]:
    """Latent sites in their own units, each ``(chains, draws, ...)``."""
    posterior = bayesdd.sample(task, distilled, draws=count, chains=CHAINS, seed=seed).posterior
    return {name: np.asarray(posterior[name]) for name in task.sites}


def _rhat(values: Mapping[str, Array]) -> float:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # constant entries, such as the corner of a Cholesky factor, have none
        import arviz
        import xarray as xr

        sets = [
            xr.Dataset({name: (("chain", "draw", "entry"), value.reshape(CHAINS, value.shape[1], -1))})
            for name, value in values.items()
        ]
        return max(float(np.nanmax(np.asarray(arviz.rhat(one)[name]))) for one in sets for name in one.data_vars)


def _log_likelihood(model: Callable[..., Any], rows: Columns, weight: Tensor, values: Columns) -> Array:
    """Weighted sum over rows at each draw, ``(S,)``."""
    count = len(next(iter(values.values())))
    return np.array([_evaluate(model, rows, weight, {n: v[s] for n, v in values.items()})[0] for s in range(count)])


def _evaluate(model: Callable[..., Any], rows: Columns, weight: Tensor, values: Columns) -> tuple[float, float]:
    """Weighted log-likelihood of the rows and log prior in the sites' own units."""
    with _float64(), pyro.validation_enabled(False), torch.no_grad():
        trace = pyro.poutine.trace(pyro.poutine.condition(model, data=values)).get_trace(**rows)
        trace = pyro.poutine.util.prune_subsample_sites(trace)
        trace.compute_log_prob()
    likelihood, prior = 0.0, 0.0
    for name, site in trace.nodes.items():
        if site["type"] != "sample":
            continue
        log_prob = site["log_prob"]
        if name in values or not site["cond_indep_stack"]:
            prior += float(log_prob.sum())
        else:
            likelihood += float(
                log_prob.expand(len(weight), *log_prob.shape[1:]).reshape(len(weight), -1).sum(1) @ weight
            )
    return likelihood, prior


def _quadrature(model: Callable[..., Any], sets: list[Weighted], draws: list[dict[str, Array]]) -> dict[str, float]:
    """On a grid in unconstrained coordinates, as wide as the draws of both posteriors."""
    values = {name: torch.as_tensor(np.concatenate([part[name] for part in draws])).flatten(0, 1) for name in draws[0]}
    transforms = _transforms(model, sets[0][0], values)
    free = {name: transforms[name].inv(value).reshape(len(value), -1) for name, value in values.items()}
    widths = [part.shape[1] for part in free.values()]
    flat = torch.cat(list(free.values()), 1).double()
    root = torch.linalg.cholesky(torch.cov(flat.T).reshape(len(flat.T), -1))
    axis = torch.linspace(-REACH, REACH, NODES, dtype=torch.float64)
    points = flat.mean(0) + torch.cartesian_prod(*[axis] * sum(widths)).reshape(-1, sum(widths)) @ root.T
    log_joint = np.empty((2, len(points)))
    for s, point in enumerate(points):
        jacobian, here = 0.0, {}
        for (name, transform), part in zip(transforms.items(), point.split(widths), strict=True):
            part = part.reshape(values[name].shape[1:])
            here[name] = transform(part)
            jacobian += float(transform.log_abs_det_jacobian(part, here[name]).sum())
        log_joint[:, s] = [math.fsum(_evaluate(model, rows, weight, here)) + jacobian for rows, weight in sets]
    full, small = (log - np.logaddexp.reduce(log) for log in log_joint)
    return {
        "reverse": float((np.exp(small) * (small - full)).sum()),
        "forward": float((np.exp(full) * (full - small)).sum()),
    }


def _transforms(model: Callable[..., Any], rows: Columns, values: Columns) -> dict[str, Any]:
    with _float64(), pyro.validation_enabled(False):
        trace = pyro.poutine.trace(model).get_trace(**rows)
    priors: dict[str, Any] = {name: trace.nodes[name]["fn"] for name in values}
    return {name: biject_to(prior.support) for name, prior in priors.items()}


@contextmanager
def _float64() -> Iterator[None]:
    """Float64 by default, as bayesdd promises its models."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
