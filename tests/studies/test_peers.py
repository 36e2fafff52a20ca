"""Rivals of surrogates: the rows that a Laplace approximation is given are the equation's residuals."""

import pytest
import torch

from studies.peers import cell, laplace
from studies.pinn_ood.cell import NOISE, Measured
from studies.surrogates import EQUATIONS


@pytest.mark.parametrize("family", ["cubic", "steady-burgers"])
def test_rows_of_the_laplace_approximation_are_residuals_sides_and_measurements(family):
    measured, equation = Measured(family, 0), EQUATIONS[family]
    generator = torch.Generator().manual_seed(0)
    parts = [torch.nn.Linear(2, 4), torch.nn.Tanh(), torch.nn.Linear(4, 3), torch.nn.Tanh(), torch.nn.Linear(3, 1)]
    network = torch.nn.Sequential(*parts).double()
    for weight in network.parameters():
        weight.data = torch.randn(weight.shape, generator=generator, dtype=torch.float64)
    model = laplace.Rows(network, measured, equation)
    model.noise = torch.tensor([NOISE, 0.3, 0.2], dtype=torch.float64)
    x = torch.tensor([0.1, 0.4, 0.9], dtype=torch.float64, requires_grad=True)
    alpha = torch.tensor([0.3, 0.7, 1.1], dtype=torch.float64)
    u = network(measured.stacked({"x": x, "alpha": alpha}))[:, 0]
    (slope,) = torch.autograd.grad(u.sum(), x, create_graph=True)
    (bend,) = torch.autograd.grad(slope.sum(), x)
    expected = [u / NOISE, equation.residual(x, u, slope, bend) / 0.3, u / 0.2]
    for kind, outputs in enumerate(expected):
        rows = torch.stack([x, alpha, torch.full_like(x, kind)], 1)
        torch.testing.assert_close(model(rows)[:, 0], outputs)


def test_what_is_not_installed_is_named(monkeypatch):
    monkeypatch.setattr(cell.importlib.util, "find_spec", lambda name: None)
    assert set(cell.lacking()) == {cell.DEEPXDE, cell.LAPLACE}
