"""Gauss-Newton on sums of squares with a closed form."""

import itertools

import pytest
import torch

from bayesdd.numerics.levenberg_marquardt import Quadratic, damped_steps, least_squares

GENERATOR = torch.Generator().manual_seed(0)
MATRIX = torch.randn(3, 8, generator=GENERATOR, dtype=torch.float64)
WANTED = torch.randn(3, generator=GENERATOR, dtype=torch.float64)


def test_a_linear_problem_ends_at_the_nearest_solution():
    """Fewer equations than unknowns: the start moves along the rows of the matrix only."""
    start = torch.ones(8, dtype=torch.float64)
    found, left = least_squares(lambda v: MATRIX @ v - WANTED, start, 20, enough=1e-24)
    assert left <= 1e-24
    torch.testing.assert_close(found, start + torch.linalg.pinv(MATRIX) @ (WANTED - MATRIX @ start))


def test_units_of_the_residuals_do_not_matter():
    def curved(v):
        return torch.stack([v[:4].exp().sum() - 7, (v[4:] ** 2).sum() - 2, v[0] * v[7] - 0.5])

    start = torch.linspace(0.1, 0.8, 8, dtype=torch.float64)
    unit = torch.tensor([1e4, 1.0, 1e-3], dtype=torch.float64)
    for scale in (torch.ones_like(unit), unit):
        found, left = least_squares(lambda v, scale=scale: scale * curved(v), start, 20, enough=1e-20)
        assert left <= 1e-20 and float(curved(found).abs().max()) < 1e-6


def test_a_step_is_no_longer_than_it_may_be():
    """Logits that saturate: the first full step would leave no slope."""
    wanted, start = torch.tensor([0.3, 1e-3], dtype=torch.float64), torch.full((2,), 4.0, dtype=torch.float64)

    def off(v):
        return 1e3 * (v.sigmoid() - wanted)

    once, _ = least_squares(off, start, 1, enough=0.0, longest=0.5, slopes=False)
    assert 0 < float((once - start).abs().max()) <= 0.5
    found, left = least_squares(off, start, 60, enough=1e-20, longest=2.0, slopes=False)
    assert left <= 1e-20
    torch.testing.assert_close(found, wanted.logit())


def test_more_residuals_than_unknowns_end_at_the_least_squares():
    """A tall linear problem, with the Jacobian given; and the curved valley of Rosenbrock, to its end at (1, 1)."""
    tall = MATRIX.T
    wanted = torch.linspace(-1.0, 2.0, 8, dtype=torch.float64)
    found, left = least_squares(
        lambda v: tall @ v - wanted,
        torch.zeros(3, dtype=torch.float64),
        50,
        enough=0.0,
        slopes=False,
        jacobian=lambda v: (tall @ v - wanted, tall),
    )
    best = torch.linalg.lstsq(tall, wanted[:, None]).solution[:, 0]
    torch.testing.assert_close(found, best)
    assert left == pytest.approx(float((tall @ best - wanted).square().sum()))

    def valley(v):
        return torch.stack([1 - v[0], 10 * (v[1] - v[0] ** 2), v[0] * 0])

    start = torch.tensor([-1.2, 1.0], dtype=torch.float64)
    found, left = least_squares(valley, start, 100, enough=1e-24, slopes=False)
    assert left <= 1e-24
    torch.testing.assert_close(found, torch.ones(2, dtype=torch.float64))


def test_what_cannot_be_reached_ends_with_the_best():
    """(x - 1)^2 + (x + 1)^2 is 2 at least."""
    found, left = least_squares(
        lambda v: torch.stack([v[0] - 1, v[0] + 1]), torch.tensor([3.0], dtype=torch.float64), 50, enough=0.0
    )
    assert abs(left - 2) < 1e-9 and abs(float(found)) < 1e-4


def test_values_that_are_not_finite_give_the_start_back():
    start = torch.zeros(2, dtype=torch.float64)
    found, left = least_squares(lambda v: (v - 1).log(), start, 5, enough=0.0)
    assert torch.equal(found, start) and left == torch.inf


def banana(points):
    """Rosenbrock's valley and its gradient, for every point on its own."""
    x, y = points.T
    value = 50 * (y - x**2) ** 2 + 0.5 * (1 - x) ** 2
    return value, torch.stack([-200 * x * (y - x**2) - (1 - x), 100 * (y - x**2)], 1)


def banana_curvature(points, values):
    """Gauss-Newton: the residuals are 10 (y - x^2) and 1 - x."""
    x = points[:, 0]
    jacobian = torch.stack(
        [torch.stack([-20 * x, torch.full_like(x, 10)], 1), torch.tensor([-1.0, 0]).expand(len(x), 2)], 1
    )
    matrix = jacobian.mT @ jacobian

    def step(damping):
        damped = matrix + damping[:, None, None] * torch.eye(2, dtype=torch.float64)
        return -torch.linalg.solve(damped, values[1])

    return Quadratic(values[1], step, lambda s: torch.einsum("bi,bij,bj->b", s, matrix, s))


def eased(damping, better, share):
    return torch.where(share > 0.5, damping / 4, damping * 4)


def test_searches_together_are_searches_alone():
    starts = torch.tensor([[-1.2, 1.0], [3.0, -2.0], [0.0, 0.0]], dtype=torch.float64)

    def search(some):
        begun = damped_steps(banana, banana_curvature, some, torch.full((len(some),), 1e-2, dtype=torch.float64), eased)
        return list(itertools.islice(begun, 60))

    together = search(starts)
    values = torch.stack([state.values[0] for state in together])
    assert bool((values.diff(dim=0) <= 0).all()) and bool(together[0].new.all())
    for state, before in zip(together[1:], together, strict=False):
        assert torch.equal(state.new, (state.point != before.point).any(1))
    torch.testing.assert_close(together[-1].point, torch.ones_like(starts))
    for at in range(3):
        alone = search(starts[at : at + 1])
        torch.testing.assert_close(alone[20].point[0], together[20].point[at])
