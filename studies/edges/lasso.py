"""Edges by the lasso: every variable regressed on the slice before, the penalty by cross-validation.

Folds hold whole sequences. A variable of the slice before whose coefficient is not zero is a parent. With ``beside``
the other variables of the slice are covariates too: paths through them are then no edges, but which of two variables
of a slice is the parent is not said.

Source: Tibshirani, "Regression shrinkage and selection via the lasso", JRSS B 1996; the largest penalty within one
standard error of the best: Breiman, Friedman, Olshen & Stone, "Classification and regression trees", 1984.
"""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import Lasso, LassoCV
from sklearn.model_selection import GroupKFold

FOLDS = 5
Floats = NDArray[np.float64]


def selected(x: Floats, *, beside: bool = False, one_error: bool = False, seed: int = 0) -> Floats:
    """Edges of complete sequences: ``(2 V, V)`` of zeros and ones, NaN where nothing is said.

    Args:
        x: Sequences ``(rows, T, V)``.
        beside: Whether the other variables of the slice are covariates too.
        one_error: The largest penalty whose error is within one standard error of the best one's, not the best.
        seed: Seed of the folds.
    """
    rows, slices, count = x.shape
    later, before = (part.reshape(-1, count) for part in (x[:, 1:], x[:, :-1]))
    sequence = np.repeat(np.arange(rows), slices - 1)
    folds = list(GroupKFold(FOLDS, shuffle=True, random_state=seed).split(before, groups=sequence))
    table = np.full((2 * count, count), np.nan)
    for v in range(count):
        others = np.delete(later, v, axis=1) if beside else later[:, :0]
        design = np.concatenate([before, others], 1)
        design = (design - design.mean(0)) / design.std(0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # of the smallest penalties, which are not chosen
            found = LassoCV(cv=folds).fit(design, later[:, v])
            if one_error:
                found = Lasso(_largest(found)).fit(design, later[:, v])
        table[count:, v] = found.coef_[:count] != 0
    return table


def _largest(found: LassoCV) -> float:
    """The largest penalty within one standard error of the best."""
    mean, spread = found.mse_path_.mean(1), found.mse_path_.std(1, ddof=1) / np.sqrt(FOLDS)
    best = mean.argmin()
    return float(found.alphas_[mean <= mean[best] + spread[best]].max())
