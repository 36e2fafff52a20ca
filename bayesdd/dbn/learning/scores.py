r"""Scores of sets of nodes, from which families are scored.

A family's score is a difference of one function of sets of nodes, log p(v, pa) - log p(pa):

.. math:: \mathrm{score}(v \mid pa) = f(\{v\} \cup pa) - f(pa).

All of a search's families therefore need one pass over the sets, and Markov-equivalent networks score alike, exactly.
Rows of weight k count as k rows; the size of the sample is the sum of its weights.

* ``bic``: the largest log-likelihood less half the number of parameters times the log of the sample size.
* ``bge``: log marginal likelihood, linear-Gaussian, under a normal-Wishart prior of zero mean (one pseudo-row) and
  d + 2 degrees of freedom; columns are taken to be standardised, as the template's own prior does.
* ``bdeu``: log marginal likelihood, categorical, ``pseudo_rows`` spread evenly over the cells of every table.

Sources: Schwarz, "Estimating the dimension of a model", Annals of Statistics 1978; Kuipers, Moffa & Heckerman,
"Addendum on the scoring of Gaussian directed acyclic graphical models", Annals of Statistics 2014; Heckerman, Geiger &
Chickering, "Learning Bayesian networks: the combination of knowledge and statistical data", Machine Learning 1995.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from bayesdd.numerics.refusal import Refusal

PSEUDO_ROWS = 1.0  # the mean's weight in the prior of ``bge``
RELATIVE = 1e-9  # the least variance that is told from zero, in the column's own


class Sample(NamedTuple):
    """Weighted values of nodes.

    Attributes:
        values: Shape ``(rows, nodes)``; integers where the nodes are categorical.
        weight: Shape ``(rows,)``.
        states: Numbers of states of the nodes; none where they are linear-Gaussian.
    """

    values: Tensor
    weight: Tensor
    states: tuple[int, ...]

    @classmethod
    def of_moments(cls, gram: Tensor) -> Sample:
        """A sample of given second moments ``(1 + d, 1 + d)`` of (1, values); there may be more rows than values."""
        count = gram[0, 0]
        mean = gram[0, 1:] / count
        scatter = gram[1:, 1:] - count * torch.outer(mean, mean)
        size, scale = len(mean), scatter.diagonal().clamp_min(1e-300)
        root, _ = torch.linalg.cholesky_ex(scatter + RELATIVE * scale.diag())
        away = (size / count).sqrt() * root.mT
        values = torch.cat([mean + away, mean - away])
        return cls(values, (count / (2 * size)).expand(2 * size), ())


Score = Callable[[Sample, Tensor], Tensor]  # sample and sets (B, k), k nodes each -> f of each set, nats (B,)


def bic(sample: Sample, sets: Tensor) -> Tensor:
    """Maximised log-likelihood less the penalty, nats: sets ``(B, k)`` -> ``(B,)``.

    Where rows are too few for their parents the residual variance is ``RELATIVE`` of the column's own, not zero.
    """
    total, size = sample.weight.sum(), sets.shape[1]
    if sample.states:
        counts = torch.nn.utils.rnn.pad_sequence([_counts(sample, row) for row in sets], batch_first=True)
        cells = torch.tensor([math.prod(sample.states[v] for v in row) for row in sets.tolist()])
        return torch.xlogy(counts, counts / total).sum(1) - 0.5 * cells * total.log()
    scatter, _ = _scatter(sample)
    covariance = scatter / total
    covariance = covariance + RELATIVE * covariance.diagonal().clamp_min(1e-300).diag()
    fit = -0.5 * total * (_log_dets(covariance, sets) + size * (math.log(2 * math.pi) + 1))
    # Differences of k (k + 3) / 4 are (k + 2) / 2: an intercept, a variance and k coefficients, half of each.
    return fit - size * (size + 3) / 4 * total.log()


def bge(sample: Sample, sets: Tensor) -> Tensor:
    """Log marginal likelihood of linear-Gaussian nodes, nats: sets ``(B, k)`` -> ``(B,)``."""
    if sample.states:
        raise Refusal("bge scores linear-Gaussian variables, but these have states: use bdeu or bic.")
    nodes, size = sample.values.shape[1], sets.shape[1]
    total, degrees = sample.weight.sum(), 2 + size  # of d + 2, those that belong to size of the d nodes
    scatter, mean = _scatter(sample)
    level = PSEUDO_ROWS / (PSEUDO_ROWS + 1)  # of the prior's matrix, a multiple of the identity
    pull = total * PSEUDO_ROWS / (total + PSEUDO_ROWS)
    after = level * torch.eye(nodes, dtype=scatter.dtype) + scatter + pull * torch.outer(mean, mean)
    half = torch.tensor(degrees / 2, dtype=scatter.dtype)
    norm = torch.mvlgamma(half + total / 2, size) - torch.mvlgamma(half, size) if size else torch.zeros(())
    norm = norm + 0.5 * size * (math.log(PSEUDO_ROWS) - (total + PSEUDO_ROWS).log() - total * math.log(math.pi))
    return norm + half * size * math.log(level) - (half + total / 2) * _log_dets(after, sets)


def bdeu(sample: Sample, sets: Tensor, *, pseudo_rows: float = 1.0) -> Tensor:
    """Log marginal likelihood of categorical nodes, nats: sets ``(B, k)`` -> ``(B,)``."""
    if not sample.states:
        raise Refusal("bdeu scores categorical variables, but these have no states: use bge or bic.")
    found = []
    for row in sets:
        counts = _counts(sample, row)
        share = torch.tensor(pseudo_rows / len(counts), dtype=counts.dtype)
        found.append((torch.lgamma(counts + share) - torch.lgamma(share)).sum())
    return torch.stack(found)


def _counts(sample: Sample, nodes: Tensor) -> Tensor:
    """Weighted counts of the joint states of some nodes, flat."""
    index, cells = torch.zeros(len(sample.values), dtype=torch.int64), 1
    for v in nodes.tolist():
        index, cells = index * sample.states[v] + sample.values[:, v], cells * sample.states[v]
    return torch.bincount(index, sample.weight, minlength=cells)


def _scatter(sample: Sample) -> tuple[Tensor, Tensor]:
    """Weighted sums of squares and products about the mean ``(d, d)``, and the mean ``(d,)``."""
    mean = (sample.weight @ sample.values) / sample.weight.sum()
    away = sample.values - mean
    return away.mT @ (sample.weight[:, None] * away), mean


def _log_dets(matrix: Tensor, sets: Tensor) -> Tensor:
    """Log determinants of principal submatrices ``(B,)``."""
    if not sets.shape[1]:
        return torch.zeros(len(sets), dtype=matrix.dtype)
    blocks = matrix[sets[:, :, None], sets[:, None, :]]
    root: Tensor = torch.linalg.cholesky(blocks)
    return 2 * root.diagonal(dim1=1, dim2=2).log().sum(1)
