r"""Categorical or mixed rows with missing entries that stand for sources: real rows, chosen and weighted.

A state cannot move by a gradient, and with missing entries there is no closed form. Rows are therefore picked one by
one, each time the one whose log-likelihood, as a function of the tables, correlates best with what the rows so far
leave of :math:`l_D`, and all weights are fitted anew by non-negative least squares at draws of the posterior. The rows
are the sources' own: where these must not be shown, merge to complete rows, which are simulated.

Source: Campbell & Broderick, "Automated scalable Bayesian inference via Hilbert coresets", JMLR 2019 (the norm); Pati,
Rezaiifar & Krishnaprasad, "Orthogonal matching pursuit", Asilomar 1993 (the choice).
"""

from __future__ import annotations

import math

import torch
from scipy.optimize import nnls
from torch import Tensor

from bayesdd.dbn.inference.pooling import Pooled
from bayesdd.dbn.likelihood import log_likelihood
from bayesdd.dbn.merging.masked import HELD_OUT
from bayesdd.dbn.template.columns import as_columns
from bayesdd.numerics.refusal import Refusal

DRAWS = 800


def chosen_rows(full: Pooled, size: int, *, equal_weights: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """At most ``size`` rows of the sources and their weights; fewer where no further one helps.

    Returns:
        Sequences ``(M, T, V)``, static values ``(M, V_s)``, weights ``(M,)``, and the log-ratio at draws
        that the choice has not seen, nats.

    Raises:
        Refusal: Some row has too many joint states of missing entries, or more rows are asked for than there are.
    """
    if any(source.noisy for source in full.noisy):
        raise Refusal("merge chooses among the rows of sources without noise: use complete=True where there is noise.")
    if size > full.count:
        raise Refusal(f"merge chooses among {full.count} categorical rows: ask for size= of at most that.")
    x, static = (torch.cat(part) for part in zip(*full.rows, strict=True))
    step = max(1, len(next(iter(full.draws.values()))) // DRAWS)
    draws = {site: value[::step] for site, value in full.draws.items()}
    by_row = log_likelihood(full.template, draws, as_columns(full.template, (x, static)))
    last = int(len(by_row) * (1 - HELD_OUT))
    centred = by_row[:last] - by_row[:last].mean(0)
    picked, weight = _pursued(centred, size)
    if equal_weights:
        ones = centred[:, picked].sum(1)
        weight = torch.full_like(weight, float((ones @ centred.sum(1)) / (ones @ ones)))
    return x[picked], static[picked], weight, by_row[last:].sum(1) - by_row[last:, picked] @ weight


def _pursued(centred: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Row numbers and weights: orthogonal matching pursuit with non-negative weights."""
    goal = centred.sum(1)
    norms = centred.norm(dim=0).clamp_min(1e-300)
    picked, weight, left = torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.float64), goal
    for _ in range(2 * size):
        if len(picked) == size:
            break
        gain = (left @ centred) / norms
        gain[picked] = -math.inf
        if not float(gain.max()) > 0:
            break
        tried = torch.cat([picked, gain.argmax()[None]])
        found = torch.from_numpy(nnls(centred[:, tried].numpy(), goal.numpy())[0])
        picked, weight = tried[found > 0], found[found > 0]
        left = goal - centred[:, picked] @ weight
    return picked, weight
