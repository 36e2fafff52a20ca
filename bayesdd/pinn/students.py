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
from bayesdd.pinn.left import sizes, zeros
from bayesdd.pinn.measurements import points_of
from bayesdd.pinn.problem import Problem
from bayesdd.pinn.residuals import Networks
from bayesdd.pinn.spread import Field, pooled
from bayesdd.pinn.tasks import FIELD


@dataclass(frozen=True, eq=False)
class Taught:
    """Plain networks of one shape, each trained from scratch on the same weighted rows.

    Attributes:
        regression: The network as a regression.
        rows: The rows.
        precision: Their weights over the squared noise, ``(M,)``.
        fits: The networks' modes.
        networks: The same beside the surrogate's constants and unknown functions: what :meth:`errors` looks at.
        theta: Their steps, ``(S, P)``.
        seed: The surrogate's.
    """

    regression: Regression
    rows: Columns
    precision: Tensor
    fits: Fits
    networks: Networks
    theta: Tensor
    seed: int

    @property
    def problem(self) -> Problem:
        """What the rows are about."""
        return self.networks.problem

    def errors(self, points: Any = None, seed: int = 1) -> dict[str, float]:
        """Root mean square of what these networks leave of the equation and of every condition, at new points.

        No truth is needed. Unknown constants and functions are the surrogate's. Arguments and result are those of
        :meth:`bayesdd.pinn.Surrogate.errors`: the equation's and fields' own units.
        """
        columns = None if points is None else points_of(self.problem, points, "student_fit(...).errors")
        terms = [term.to(self.theta.device) for term in zeros(self.problem, columns, self.seed + seed)]
        names = [name for term in terms for name in term.names]
        return dict(zip(names, sizes(self.networks, terms, self.theta), strict=True))

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
