"""Several fits as one prediction: their mean, and a spread of what each says of itself and of their differences."""

from __future__ import annotations

import math

import numpy as np
from scipy import stats
from torch import Tensor

from bayesdd.data.accuracy import Z90

Field = tuple[np.ndarray, np.ndarray]


def pooled(values: Tensor, variances: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and sd over K fits, of their values and own variances ``(K, N)``."""
    count = len(values)
    between = values.var(0, correction=0) * widening(count) ** 2 if count > 1 else 0.0
    return values.mean(0), (variances.clamp_min(0).mean(0) + between).sqrt()


def widening(count: int) -> float:
    """What differences of K fits from their mean are multiplied by, so that they stand for that of a further one.

    A further fit has 1 + 1 / K times the variance that K of them estimate, and its 90 % interval is that of a t
    distribution with K - 1 degrees of freedom.
    """
    if count == 1:
        return 1.0
    wide = float(stats.t.ppf(0.95, count - 1)) / Z90
    return wide * math.sqrt((1 + 1 / count) * count / (count - 1))
