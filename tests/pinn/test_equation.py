"""Families of differential equations: every solution is one, every wrong one is refused."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from bayesdd.pinn import equation
from bayesdd.pinn.equation import (
    Family,
    check_exact,
    check_rows,
    collocation,
    edges,
    grid,
    lower_tail,
    measured,
    upper_tail,
)
from models import pde_bpinn, pde_burgers, pde_cubic, pde_fisher, pde_helmholtz, pde_reaction

MODULES = (pde_cubic, pde_burgers, pde_fisher, pde_helmholtz, pde_reaction, pde_bpinn)
FAMILIES = [value for m in MODULES for value in vars(m).values()]
FAMILIES = [value for value in FAMILIES if isinstance(value, Family)]
WITH_ALPHA = [family for family in FAMILIES if family.alpha is not None]


def named(family):
    return family.name


@pytest.mark.parametrize("family", FAMILIES, ids=named)
def test_the_exact_solution_solves_the_equation(family):
    check_exact(family)


@pytest.mark.parametrize("family", FAMILIES, ids=named)
def test_a_wrong_solution_is_refused(family):
    wrong = replace(family, exact=lambda x, alpha: family.exact(x, alpha) + 1e-3 * x[:, 0] ** 3)
    with pytest.raises(ValueError, match="fails its own equation: residual") as caught:
        check_exact(wrong)
    assert family.name in str(caught.value) and "\n" not in str(caught.value)


def test_a_right_solution_of_other_boundary_values_is_refused():
    wrong = replace(pde_cubic.CUBIC, boundary=equation.ends(torch.ones_like, torch.ones_like, (0.0, 1.0)))
    with pytest.raises(ValueError, match="misses its own boundary values by"):
        check_exact(wrong)


def test_a_boundary_condition_outside_is_refused():
    cubic = pde_cubic.CUBIC
    wrong = replace(cubic, boundary=equation.ends(lambda a: a, lambda a: a / (1 + 1.5 * a), (0.0, 1.5)))
    with pytest.raises(ValueError, match=r"a boundary condition of u'' = 2 u\^3: x\[0\] = 1.5 in row 1 lies outside"):
        check_exact(wrong)


def test_a_residual_that_is_not_finite_is_refused():
    wrong = replace(pde_cubic.CUBIC, residual=lambda x, alpha, u, p: u.second[0] - (u.u - 5).sqrt())
    with pytest.raises(ValueError, match="is not finite"):
        check_exact(wrong)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"x": torch.tensor([[0.5], [1.2]])}, r"x\[0\] = 1.2 in row 1 lies outside its domain \[0, 1\]"),
        ({"alpha": torch.tensor([0.5, -1.0])}, r"alpha = -1 in row 1 lies outside its domain \[0.1, 1.9\]"),
        ({"x": torch.tensor([0.5, 0.5])}, r"needs x of shape \(N, 1\), got \(2,\)"),
        ({"alpha": torch.tensor([0.5, float("nan")])}, "alpha = nan in row 1"),
    ],
)
def test_rows_outside_the_domain_are_refused(change, words):
    rows = {"x": torch.tensor([[0.5], [0.6]]), "alpha": torch.tensor([0.5, 0.6]), "y": torch.zeros(2)} | change
    with pytest.raises(ValueError, match=words):
        check_rows(pde_cubic.CUBIC, rows, "measurements")


def test_rows_without_alpha_are_refused():
    with pytest.raises(ValueError, match="needs a column 'alpha', got"):
        check_rows(pde_cubic.CUBIC, {"x": torch.zeros(2, 1)}, "measurements")


@pytest.mark.parametrize("family", WITH_ALPHA, ids=named)
def test_affine_in_alpha_where_it_says_so(family):
    """Second difference in alpha at equal x: zero for affine families only."""
    low, high = family.alpha
    at = low + (high - low) * torch.tensor([0.2, 0.5, 0.8], dtype=torch.float64)
    x = collocation(family, 32)["x"]
    u = torch.stack([family.exact(x, a.expand(32)) for a in at])
    bend = float((u[0] - 2 * u[1] + u[2]).abs().max())
    assert bend > 1e-2 if family.nonlinear_in_alpha else bend < 1e-12


@pytest.mark.parametrize("family", WITH_ALPHA, ids=named)
def test_tails_are_apart_and_inside(family):
    low, high = family.alpha
    middle, sd = (low + high) / 2, (high - low) / 6
    above, below = upper_tail(family, 2000, 0), lower_tail(family, 2000, 1)
    assert float(above.min()) >= middle + 0.5 * sd and float(above.max()) <= high
    assert float(below.max()) <= middle - 0.5 * sd and float(below.min()) >= low
    # Mean of a standard normal above 1/2, cut at 3: (phi(1/2) - phi(3)) / (Phi(3) - Phi(1/2)) = 1.1339; its sd 0.51.
    assert abs(float((above.mean() - middle) / sd) - 1.1339) < 5 * 0.51 / 2000**0.5


@pytest.mark.parametrize("family", FAMILIES, ids=named)
def test_rows_lie_in_the_domain_and_repeat(family):
    makers = [lambda: measured(family, 20, seed=1), lambda: collocation(family, 20, seed=1)]
    makers.append(lambda: edges(family, 5, seed=1))
    for make in makers:
        rows = make()
        check_rows(family, rows, "rows")
        torch.testing.assert_close(rows, make(), rtol=0, atol=0)
    # Without noise a measurement is the solution.
    rows = measured(family, 20, noise=0.0)
    alpha = rows.get("alpha", torch.zeros(20))
    torch.testing.assert_close(rows["y"], family.exact(rows["x"], alpha), rtol=0, atol=0)


def test_a_grid_holds_one_alpha_after_another():
    rows = grid(pde_fisher.FISHER_KPP, torch.tensor([0.5, 1.5], dtype=torch.float64), points=16)
    assert rows["x"].shape == (32, 2) and rows["alpha"].tolist() == [0.5] * 16 + [1.5] * 16


@pytest.mark.parametrize("alpha", [-1.37, 0.11, 0.93])
def test_the_reference_is_what_the_solver_says_between_its_nodes(alpha):
    x = np.linspace(-1, 1, 41)
    found = pde_reaction.REACTION_DIFFUSION.exact(torch.tensor(x)[:, None], torch.full((41,), alpha).double())
    np.testing.assert_allclose(found.numpy(), pde_reaction.solve(alpha).sol(x)[0], rtol=0, atol=1e-8)


def test_sensors_measure_the_right_side():
    rows = pde_bpinn.sensors(pde_bpinn.NONLINEAR, 32, 0.0, 0)
    assert rows["x"].shape == (32, 1) and set(rows) == {"x", "y"}
    x = rows["x"].requires_grad_(True)
    u = equation.jet_of(pde_bpinn.NONLINEAR.exact, x, torch.zeros(32))
    left = 0.01 * u.second[0] + 0.7 * torch.tanh(u.u)
    torch.testing.assert_close(left.detach(), rows["y"])


def test_a_single_problem_has_no_tails():
    with pytest.raises(ValueError, match="is a single problem"):
        upper_tail(pde_bpinn.LINEAR, 3, 0)
