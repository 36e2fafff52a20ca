"""What a model form is: a Pyro model as people write it, and data with known parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bayesdd import Task
from bayesdd.task.kinds import Kind

Rng = np.random.Generator
Data = Mapping[str, Any]


@dataclass(frozen=True)
class Form:
    """A model form.

    Attributes:
        name: As in cells' names.
        title: As in the table.
        model: The Pyro model.
        data: Draws its columns, or a data frame of them.
        size: Synthetic rows M; 2 P + 4 where it is left out.
        kinds: Kinds of columns that the data do not tell.
        exact: Mean and covariance of the Gaussian posterior of ``(**columns, weight=)``, for conjugate forms.
    """

    name: str
    title: str
    model: Callable[..., Any]
    data: Callable[[Rng], Any]
    size: int | None = None
    kinds: Mapping[str, Kind] = field(default_factory=dict)
    exact: Callable[..., Any] | None = None

    def task(self, seed: int) -> Task:
        """The task, its data drawn with the seed."""
        return Task(self.model, self.data(np.random.default_rng(seed)), kinds=self.kinds)


def design(rng: Rng, rows: int, covariates: int) -> np.ndarray[Any, Any]:
    """A design matrix: a column of ones, then standard normal covariates."""
    return np.column_stack([np.ones(rows), rng.normal(size=(rows, covariates))])
