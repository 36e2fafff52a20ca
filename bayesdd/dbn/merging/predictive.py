r"""Complete rows too few for a posterior: match what it predicts instead.

Rows below the number that a posterior needs (two rows fit a first slice's regression exactly, and leave it no residual
variance) are best judged by their predictions. The log predictive density of a sequence x given rows U is a difference
of the families' normalisers,

.. math:: \log p(x \mid U) = \sum_f \log Z_f(C_U + C_x) - \log Z_f(C_U) - \tfrac{n_f}{2} \log 2\pi,
          \quad \log Z = \log\Gamma(a) - a \log b - \tfrac12 \log|\Lambda|,

with the second moments C of rows and sequence. The objective is minus its mean over sequences simulated from the full
posterior: up to a constant the KL from the full posterior's predictive density, nats a sequence. Exact, no particles.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from bayesdd.dbn.inference.pooling import Pooled
from bayesdd.dbn.inference.regressions import Layout
from bayesdd.dbn.merging.moments import Joint

SIMULATED = 400  # sequences, one a draw


def prediction_loss(full: Pooled, layout: Layout, slices: int, seed: int) -> Callable[[Tensor], Tensor]:
    """Second moments of rows ``(kinds, d, d)`` -> minus the mean log predictive density of a sequence, nats.

    Sequences of ``slices`` slices are simulated from the full posterior.
    """
    generator = torch.Generator().manual_seed(seed)
    step = max(1, len(next(iter(full.draws.values()))) // SIMULATED)
    joint = Joint.of(full.template, {site: value[::step] for site, value in full.draws.items()}, slices)
    root, _ = torch.linalg.cholesky_ex(joint.covariance)
    noise = torch.randn(joint.mean.shape, generator=generator, dtype=torch.float64)
    flat = (joint.mean + (root @ noise[..., None])[..., 0])[:, None]  # one row each
    count = len(full.template.static)
    one = torch.ones(1, dtype=torch.float64)
    sequences = layout.grams(flat[..., count:].unflatten(-1, (slices, -1)), flat[..., :count], one)
    entries = joint.mean.shape[1]

    def loss(gram: Tensor) -> Tensor:
        with_sequence = log_normalisers(layout, gram + sequences).sum(1).mean()
        return log_normalisers(layout, gram).sum() - with_sequence + 0.5 * entries * math.log(2 * math.pi)

    return loss


def log_normalisers(layout: Layout, gram: Tensor) -> Tensor:
    """Log Z of every family ``(..., F)``, up to a constant."""
    found = layout.fitted(gram)
    logs = found.root.diagonal(dim1=-2, dim2=-1).log()
    return torch.lgamma(found.shape) - found.shape * found.scale.log() - (logs * layout.real).sum(-1)
