"""Plain networks that are taught by rows, and what they predict."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bayesdd.data.columns import Columns
from bayesdd.networks import students
from bayesdd.networks.regression import Regression
from bayesdd.networks.students import Fits
from bayesdd.pinn.measurements import points_of
from bayesdd.pinn.problem import Problem
from bayesdd.pinn.spread import Field, pooled
from bayesdd.pinn.tasks import FIELD


@dataclass(frozen=True, eq=False)
class Taught:
    """Plain networks of one shape, each trained from scratch on the same weighted rows.

    Attributes:
        problem: What the rows are about; its equation is not used.
        regression: The network as a regression.
        rows: The rows.
        precision: Their weights over the squared noise, ``(M,)``.
        fits: The networks' modes.
    """

    problem: Problem
    regression: Regression
    rows: Columns
    precision: Tensor
    fits: Fits

    def predict(self, points: Any) -> dict[str, Field]:
        """Fields at points: name -> mean and standard deviation, float64 arrays ``(N,)``; without measurement noise.

        Raises:
            Refusal: A column is missing or strange, or a point lies outside the domain.
        """
        columns = points_of(self.problem, points, "student_fit(...).predict")
        found, names = {}, self.problem.names.outputs
        for code, name in enumerate(names):
            count = len(next(iter(columns.values())))
            asked = columns if len(names) == 1 else {**columns, FIELD: torch.full((count,), code)}
            with torch.no_grad():
                mean, sd = students.spread(self.regression, self.fits.latents, self.rows, self.precision, asked)
            middle, wide = pooled(mean, sd**2)
            found[name] = (np.asarray(middle), np.asarray(wide))
        return found
