"""Derivatives of observed rows against derivatives of all rows at once."""

import torch
from torch.autograd.functional import jacobian
from torch.func import grad, jacrev

from bayesdd.inference.observed_rows import observed, row_jacobian
from bayesdd.task.program import Feeder, running
from models import linear_regression

TASK = linear_regression.task_unknown_noise(rows=6, dim=3)
FLAT = torch.linspace(-1, 1, TASK.dim, dtype=torch.float64)


def of_all(flat):
    """Mean over noise of every row, both functions of the latents."""
    fn = observed(TASK, Feeder(TASK.program, flat), TASK.data)[0]["fn"]
    return fn.mean / fn.scale


def test_each_row_has_the_derivative_that_all_rows_give_it():
    def read(seen, row):
        ratio = (seen[0]["fn"].mean / seen[0]["fn"].scale).squeeze()
        return ratio, ratio * row["other"]

    rows = {**TASK.data, "other": torch.arange(6, dtype=torch.float64)}
    with running():
        slopes, beside = row_jacobian(TASK, read, grad)(FLAT, rows)
        torch.testing.assert_close(slopes, jacobian(of_all, FLAT))
        torch.testing.assert_close(beside, of_all(FLAT) * rows["other"])


def test_several_numbers_of_a_row():
    def read(seen, row):
        fn = seen[0]["fn"]
        both = torch.cat([fn.mean / fn.scale, fn.mean**2])
        return both, both

    with running():
        slopes, values = row_jacobian(TASK, read, jacrev)(FLAT, TASK.data)
        assert slopes.shape == (6, 2, TASK.dim) and values.shape == (6, 2)
        torch.testing.assert_close(slopes[:, 0], jacobian(of_all, FLAT))
