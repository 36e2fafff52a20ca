"""What lies between a distilled posterior and the full one.

By formulas or by importance sampling, which share no code with bayesdd's certificate; where both fail, by the
certificate's own numbers, and marked as such.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

import bayesdd
from bayesdd.certificate.verdict import draw_distilled
from bayesdd.density.density import density_of
from models import gaussian_mean
from studies.shared import densities, true_kl
from studies.shared.true_kl import Array

DRAWS = 4000  # of the mixture of both posteriors: standard errors of a few percent of each KL
FEW = 1000  # of a Gaussian posterior, for predictions only
CELLS = 2**18  # draws x held-out rows at once


@dataclass(frozen=True)
class Sample:
    """Draws in the task's unconstrained coordinates ``(S, P)`` and the logs of their normalised weights ``(S,)``."""

    values: Array
    log_weight: Array

    @property
    def moments(self) -> tuple[Array, Array]:
        """Mean and standard deviation of every coordinate, ``(P,)`` each."""
        weight = np.exp(self.log_weight)
        mean = weight @ self.values
        return mean, np.sqrt(weight @ (self.values - mean) ** 2)


@dataclass(frozen=True)
class Comparison:
    """A distilled posterior beside the full one.

    Attributes:
        kl: ``reverse``, ``reverse_se``, ``forward``, ``forward_se``, nats.
        full: Draws of the full posterior.
        small: Draws of the distilled posterior.
        moments: Mean and sd of the full posterior, then of the distilled one.
        how: ``exact``, ``importance`` or ``certificate``.
    """

    kl: dict[str, float]
    full: Sample
    small: Sample
    moments: tuple[tuple[Array, Array], tuple[Array, Array]]
    how: str


@dataclass(frozen=True)
class Truth:
    """A full posterior: draws of it, and how a distilled set is compared with it."""

    full: Sample
    compare: Callable[[bayesdd.Distilled], Comparison]


def conjugate(formula: Callable[..., tuple[Tensor, Tensor]], task: bayesdd.Task, seed: int) -> Truth:
    """Gaussian posteriors known by a formula; their draws share one noise, so that differences are free of it."""
    noise = np.random.default_rng(seed).normal(size=(FEW, task.dim))
    even = np.full(FEW, -np.log(FEW))

    def drawn(mean: Tensor, covariance: Tensor) -> Sample:
        return Sample(mean.numpy() + noise @ torch.linalg.cholesky(covariance).numpy().T, even)

    def spread(mean: Tensor, covariance: Tensor) -> tuple[Array, Array]:
        return mean.numpy(), covariance.diagonal().sqrt().numpy()

    full = formula(**columns(task.data))

    def compare(distilled: bayesdd.Distilled) -> Comparison:
        small = formula(**weighted(distilled))
        kl = {"reverse": float(gaussian_mean.kl(small, full)), "forward": float(gaussian_mean.kl(full, small))}
        moments = spread(*full), spread(*small)
        return Comparison(kl | {"reverse_se": 0.0, "forward_se": 0.0}, drawn(*full), drawn(*small), moments, "exact")

    return Truth(drawn(*full), compare)


def sampled(
    build: Callable[..., true_kl.Posterior], task: bayesdd.Task, seed: int, *, start: int | None = None
) -> Truth:
    """Importance sampling; ``start`` is the number of coordinates that ``build`` leaves to sample, default all."""
    full = build(**columns(task.data), weight=np.ones(task.size))
    zeros = np.zeros(task.dim if start is None else start)
    known = true_kl.prepared(full, zeros, draws=DRAWS, seed=seed)
    noise = np.random.default_rng(seed).normal(size=(DRAWS, task.dim - len(zeros)))

    def completed(posterior: true_kl.Posterior, theta: Array, log_weight: Array) -> Sample:
        """Coordinates that were integrated out are drawn given the others."""
        if posterior.conditional is None:
            return Sample(theta, log_weight)
        mean, precision = posterior.conditional(theta)
        return Sample(np.column_stack([theta, mean + noise[: len(theta)] / np.sqrt(precision)]), log_weight)

    def compare(distilled: bayesdd.Distilled) -> Comparison:
        small = build(**weighted(distilled))
        found = true_kl.between(full, small, known.fit[0], draws=DRAWS, seed=seed, known=known)
        kl = {name: getattr(found, name) for name in ("reverse", "reverse_se", "forward", "forward_se")}
        samples = completed(full, found.theta, found.log_p), completed(small, found.theta, found.log_q)
        return Comparison(kl, *samples, (samples[0].moments, samples[1].moments), "importance")

    return Truth(completed(full, known.theta, known.log_weight), compare)


def intercepts(task: bayesdd.Task, seed: int) -> Truth:
    """The varying intercepts' own: the intercepts are integrated out."""
    groups = task.sites["z"][0]
    build: Any = partial(densities.varying_intercepts, groups=groups)
    return sampled(build, task, seed, start=task.dim - groups)


def by_certificate(
    task: bayesdd.Task, distilled: bayesdd.Distilled, certificate: bayesdd.Certificate, truth: Truth, seed: int
) -> Comparison:
    """The certificate's KLs, lower bounds where its draws miss the full posterior, and draws by bayesdd's sampler."""
    draws = draw_distilled(density_of(task, distilled, "cpu"), seed)
    flat = draws.flat.numpy()
    log_weight = np.zeros(len(flat)) if draws.log_weight is None else draws.log_weight.flatten().numpy()
    small = Sample(flat, log_weight - np.logaddexp.reduce(log_weight))
    kl = {
        name: float(getattr(certificate, f"kl_{name}")) for name in ("reverse", "reverse_se", "forward", "forward_se")
    }
    return Comparison(kl, truth.full, small, (truth.full.moments, small.moments), "certificate")


def held_out(task: bayesdd.Task, rows: Mapping[str, Tensor], found: Comparison) -> float:
    """Log predictive density of held-out rows, distilled minus full, nats per row."""
    full = _log_predictive(task, rows, found.full)
    return float((_log_predictive(task, rows, found.small) - full).mean())


def _log_predictive(task: bayesdd.Task, rows: Mapping[str, Tensor], sample: Sample) -> Tensor:
    """Log of the average over draws, shape ``(J,)``."""
    chunk = max(1, CELLS // len(next(iter(rows.values()))))
    values, log_weight = (torch.from_numpy(np.ascontiguousarray(a)) for a in (sample.values, sample.log_weight))
    total: Tensor | None = None
    with torch.no_grad():
        for some, weight in zip(values.split(chunk), log_weight.split(chunk), strict=True):
            here = (task.log_likelihood(dict(rows), some) + weight[:, None]).logsumexp(0)
            total = here if total is None else torch.logaddexp(total, here)
    assert total is not None  # there are draws
    return total


def columns(data: Mapping[str, Tensor]) -> dict[str, Array]:
    """Columns as arrays."""
    return {name: column.numpy() for name, column in data.items()}


def weighted(distilled: bayesdd.Distilled) -> dict[str, Array]:
    """Rows and weights as arrays, soft classes as weighted rows."""
    rows, weight = distilled.hard()
    return columns(rows) | {"weight": weight.numpy()}
