"""Taylor coefficients of networks against derivatives of derivatives."""

import pytest
import torch

from bayesdd.networks import mlp
from bayesdd.networks.jets import closure, factorial, linearised, series
from bayesdd.networks.mlp import Network

NET = Network((0.5, -1.0), (2.0, 0.7), (5, 4), outputs=((0.3, 2.0), (0.0, 1.0)))


def along(function, axis):
    """The derivative along an axis, row by row, of each output."""

    def slope(z):
        values = function(z)
        by_output = [torch.autograd.grad(value.sum(), z, create_graph=True)[0][:, axis] for value in values.unbind(1)]
        return torch.stack(by_output, 1)

    return slope


@pytest.mark.parametrize("index", [(0, 0), (1, 0), (0, 2), (1, 1), (3, 0), (2, 1), (4, 0), (2, 2)])
def test_coefficients_are_derivatives_of_any_order(index):
    generator = torch.Generator().manual_seed(0)
    flat = torch.randn(3, NET.dim, generator=generator, dtype=torch.float64)
    z = torch.rand(7, 2, generator=generator, dtype=torch.float64).requires_grad_(True)
    indices = closure([index], 2)
    own, unit = mlp.own_coordinates(NET, z)
    found = series(mlp.split(NET, flat), own, unit, indices)[:, indices.index(index)]
    shift, scale = torch.tensor(NET.outputs, dtype=torch.float64).unbind(1)
    for one, weights in zip(found, flat, strict=True):
        layers = mlp.split(NET, weights)

        def function(at, layers=layers):
            return (mlp.value(NET, layers, at) - shift) / scale

        for axis, order in enumerate(index):
            for _ in range(order):
                function = along(function, axis)
        torch.testing.assert_close(factorial(index) * one, function(z).detach(), rtol=1e-9, atol=1e-9)


def test_only_what_lies_below_is_computed():
    assert closure([(4, 0)], 2) == ((0, 0), (1, 0), (2, 0), (3, 0), (4, 0))
    assert set(closure([(1, 1)], 2)) == {(0, 0), (0, 1), (1, 0), (1, 1)}
    assert closure([], 3) == ((0, 0, 0),)


def test_slopes_along_a_step_are_those_of_the_coefficients():
    network = Network((0.2, -0.1), (1.5, 0.7), (5, 4), outputs=((0.0, 1.0), (0.0, 1.0)))
    weights, step = torch.randn(2, 3, network.dim, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    z, unit = mlp.own_coordinates(network, torch.linspace(-0.7, 1.1, 12, dtype=torch.float64).reshape(6, 2))
    indices = closure([(2, 1), (0, 3)], 2)

    def coefficients(flat):
        return series(mlp.split(network, flat), z, unit, indices)

    value, slope = linearised(mlp.split(network, weights), mlp.split(network, step), z, unit, indices)
    torch.testing.assert_close(value, coefficients(weights))
    h = 1e-5  # a central difference is off by h^2, and by rounding over h
    around = (coefficients(weights + h * step) - coefficients(weights - h * step)) / (2 * h)
    torch.testing.assert_close(slope, around, rtol=1e-6, atol=1e-6)
