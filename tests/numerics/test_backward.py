"""Vector-Jacobian products: those of torch.autograd.grad."""

import torch

from bayesdd.numerics.backward import jacobian, products

X = torch.linspace(-1.0, 1.0, 3, dtype=torch.float64)
MATRIX = torch.arange(6.0, dtype=torch.float64).reshape(2, 3)


def test_products_of_a_linear_map_are_its_rows_and_of_its_square_can_be_differentiated():
    x = X.clone().requires_grad_()
    unused = torch.ones(1, dtype=torch.float64, requires_grad=True)
    along = torch.tensor([2.0, -1.0], dtype=torch.float64)
    found, nothing = products([MATRIX @ x], [x, unused], [along])
    torch.testing.assert_close(found, along @ MATRIX)
    assert nothing is None
    (slope,) = products([(x**3).sum()], [x], [torch.ones((), dtype=torch.float64)], create_graph=True)
    (second,) = products([slope], [x], [torch.ones_like(x)])
    torch.testing.assert_close(second, 6 * X)


def test_jacobians_are_batched_over_rows():
    x = X.clone().requires_grad_()
    value = MATRIX @ x**2
    for _ in range(2):  # the graph is kept
        torch.testing.assert_close(jacobian(value, x, torch.eye(2, dtype=torch.float64)), 2 * MATRIX * X)
