"""A source's summary: three derivatives of its log-likelihood at a point, and what they leave out."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bayesdd.data.certificate import CertificateWarning
from bayesdd.density.density import Density
from bayesdd.density.third import third_derivatives, to_third_order
from bayesdd.inference.mode import fit
from bayesdd.numerics.exclusive import exclusive
from bayesdd.numerics.refusal import Refusal
from bayesdd.summaries.noun import Summary
from bayesdd.task.given import task_of
from bayesdd.task.task import Task

MOST_LATENTS = 60  # 37,820 third derivatives; beyond that rows are smaller than their summary
SEEN, LEAST_POWER = 1e-3, 2.5  # nats; fourth derivatives leave the fourth power of the distance, kinks the first
SCALES = (0.03125, 0.0625, 0.125, 0.25, 0.5, 1.0, 2.0)  # widths of draws: other sources may make a posterior narrower
DRAWS = 128  # at each of them


@exclusive
def summary(task: Task, at: Mapping[str, Any] | Any = None, *, seed: int = 0) -> Summary:
    """A source's log-likelihood near a point to third order: what it sends in place of rows, once.

    Posteriors that agree to third order differ by O(1/N^2) nats. Derivatives of sources at one point add, so that
    ``combine`` gives those of all rows. Hessians are exact; third derivatives are differences of Hessians along the
    posterior's axes (fourth order in the step, which leaves about 1e-8 of them).

    Args:
        task: The source's rows and the model that all sources share.
        at: The common point: latent site -> value in the model's units, or an unconstrained vector ``(P,)`` such as
            ``Summary.at`` or ``Summary.mode`` of an earlier one; default the mode of this task.
        seed: Seed of the draws at which the remainder is measured.

    Returns:
        The summary: for P = 10 it is 286 numbers, and a few more that say what they leave out.

    Raises:
        Refusal: The point does not fit the task, or the log-likelihood is not finite there; too many latents.

    Warns:
        CertificateWarning: The remainder falls with the distance as a kink's does, or a branch's.

    Example:
        >>> first = bayesdd.summary(task)
        >>> first.rows == task.size, first.third.shape
        (True, torch.Size([2, 2, 2]))
    """
    task = task_of(task, "summary")
    if task.dim > MOST_LATENTS:
        raise Refusal(f"summary({task.name}): {task.dim} latents have too many third derivatives; distil rows instead")
    density = Density([(task, task.rows, None)])
    point = _point(task, density, at, seed)
    _, prior_gradient, prior_hessian = density.prior_derivatives(point[None])
    value, gradient, hessian = density.likelihood_derivatives(point[None])
    if not bool(torch.isfinite(value).all() & torch.isfinite(hessian).all()):
        raise Refusal(f"summary({task.name}): the log-likelihood is not finite at the point; give another at=")
    values, vectors = torch.linalg.eigh(-(hessian + prior_hessian)[0])
    axes = vectors / values.abs().clamp_min(1e-12 * float(values.abs().max())).sqrt()
    third = torch.nan_to_num(third_derivatives(density, point, axes))
    draws = torch.randn(DRAWS, task.dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) @ axes.T
    steps = torch.cat([scale * draws for scale in SCALES])
    left = density.sweep(point + steps) - value - to_third_order(gradient[0], hessian[0], third, steps)
    remainder = torch.nan_to_num(left.reshape(len(SCALES), DRAWS).std(1), nan=torch.inf)
    half, one = remainder[-3:-1]
    if float(one) > SEEN and float(one / half) < 2**LEAST_POWER:
        warnings.warn(
            f"summary({task.name}): what three derivatives leave out, {float(one):.2g} nats (sd), does not shrink with "
            "the distance as derivatives would have it (a kink or a branch in the model): few sources' sum will be "
            "close enough; distil rows instead",
            CertificateWarning,
            stacklevel=3,
        )
    return Summary(
        at=point,
        value=float(value),
        gradient=gradient[0],
        hessian=hessian[0],
        third=third,
        prior_gradient=prior_gradient[0],
        prior_hessian=prior_hessian[0],
        scales=torch.tensor(SCALES, dtype=torch.float64),
        remainder=remainder,
        rows=task.size,
        sources=1,
        sites=dict(task.sites),
        task=task.name,
        model_hash=task.model_hash,
    )


def _point(task: Task, density: Density, at: Any, seed: int) -> Tensor:
    """The point, unconstrained, ``(P,)``."""
    if at is None:
        found = fit(density, seed=seed)
        if found is None:
            raise Refusal(f"summary({task.name}): its posterior has no mode with a Gaussian shape; give at=")
        return found.mean
    if isinstance(at, Mapping):
        if missing := sorted(task.sites.keys() - at.keys()):
            raise Refusal(f"summary({task.name}): at= lacks latent site {missing[0]!r}; it needs {sorted(task.sites)}")
        given = {name: torch.as_tensor(np.asarray(at[name]), dtype=torch.float64) for name in task.sites}
        for name, shape in task.sites.items():
            if tuple(given[name].shape) != tuple(shape):
                raise Refusal(
                    f"summary({task.name}): at= has shape {tuple(given[name].shape)} for site {name!r}, whose values "
                    f"have shape {tuple(shape)}"
                )
        return task.unconstrain({name: value[None] for name, value in given.items()})[0]
    point = torch.as_tensor(np.asarray(at), dtype=torch.float64)
    if tuple(point.shape) != (task.dim,):
        raise Refusal(
            f"summary({task.name}): at= has shape {tuple(point.shape)}; give a mapping from latent site to value, or "
            f"an unconstrained vector of length {task.dim}"
        )
    return point
