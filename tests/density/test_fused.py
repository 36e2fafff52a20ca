"""Sweeps in float32 by one compiled graph: the arithmetic, without the compiler and the GPU that they are made for."""

import functools

import pytest
import torch

import bayesdd
from bayesdd.density import fused, passes
from bayesdd.density.density import Density
from models import logistic_regression, poisson_regression, varying_intercepts

BLOCK = 256


@pytest.fixture(autouse=True)
def on_this_processor(monkeypatch):
    """Everything goes by the fast way, in blocks of 256 rows; graphs run as they were recorded."""
    monkeypatch.setattr(fused, "DEVICES", {"cpu"})
    monkeypatch.setattr(fused, "LEAST_CELLS", 0)
    monkeypatch.setattr(passes, "BLOCK", BLOCK)
    monkeypatch.setattr(fused, "_FUSED", {})
    monkeypatch.setattr(torch, "compile", lambda graph, **settings: graph)


def swept(task, draws, monkeypatch):
    """By float32, and by float64."""
    fast = Density([(task, task.rows, None)])
    value = fast.sweep(draws)
    monkeypatch.setattr(fused, "DEVICES", set())
    return value, Density([(task, task.rows, None)]).sweep(draws), fast._passes.refused


def near_mode(task, count, spread=0.01):
    noise = torch.randn(count, task.dim, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return 0.1 + spread * noise


@pytest.mark.parametrize("module", [logistic_regression, poisson_regression, varying_intercepts])
def test_sums_are_those_of_float64(module, monkeypatch):
    task = module.task()
    draws = near_mode(task, 70)
    fast, exact, refused = swept(task, draws, monkeypatch)
    assert not refused
    assert float((fast - exact).abs().max()) < fused.ERROR
    assert not torch.equal(fast, exact)  # it was float32


def test_more_draws_than_one_call_takes(monkeypatch):
    monkeypatch.setattr(fused, "DRAWS", 64)
    task = logistic_regression.task(rows=800)
    fast, exact, _ = swept(task, near_mode(task, 150), monkeypatch)
    assert torch.allclose(fast, exact, rtol=0, atol=1e-3)


def test_draws_far_apart_keep_their_digits(monkeypatch):
    """Raw float32 sums of 100,000 rows would be off by their own size times 1e-7 and more."""
    task = logistic_regression.task(rows=20_000)
    fast, exact, _ = swept(task, near_mode(task, 80, 0.3), monkeypatch)
    assert float((fast - exact).abs().max()) < 2e-7 * float(exact.abs().max())


def test_counts_of_a_million_stay_in_float64(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    x = torch.ones(2560, 2, dtype=torch.float64)
    x[:, 1] = torch.randn(2560, generator=generator, dtype=torch.float64)
    y = torch.poisson((14 + 0.1 * x[:, 1]).exp(), generator=generator)
    task = bayesdd.Task(poisson_regression.model, {"x": x, "y": y})
    draws = torch.tensor([14.0, 0.1]) + 1e-3 * near_mode(task, 70, 1.0)
    fast, exact, refused = swept(task, draws.double(), monkeypatch)
    assert refused and torch.equal(fast, exact)


def test_a_compiler_that_fails_costs_nothing_but_time(monkeypatch):
    def broken(graph, **settings):
        raise RuntimeError("no C compiler")

    monkeypatch.setattr(torch, "compile", broken)
    task = logistic_regression.task(rows=800)
    fast, exact, refused = swept(task, near_mode(task, 20), monkeypatch)
    assert refused and torch.equal(fast, exact)


def test_few_cells_are_not_worth_a_compiler(monkeypatch):
    monkeypatch.setattr(fused, "LEAST_CELLS", 2**40)
    monkeypatch.setattr(fused, "_of", functools.partial(pytest.fail, "compiled"))
    task = logistic_regression.task(rows=800)
    fast, exact, _ = swept(task, near_mode(task, 20), monkeypatch)
    assert torch.equal(fast, exact)


def test_products_of_leading_bits_are_products_of_float32():
    """What a tensor core leaves of a number are eleven bits: nothing may be lost in the leading ones, little in all."""
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(shape, generator=generator) for shape in ((500, 40), (40, 60)))
    for number in (a, b):
        leading, rest = fused._split(number)
        assert torch.equal(leading + rest, number)
        assert not bool((leading.view(torch.int32) & (2**13 - 1)).any())
        assert float((rest / leading).abs().max()) <= 2**-11
    exact = a.double() @ b.double()
    error = float((fused._product(a, b) - exact).std())
    assert error < 1.1 * float((a @ b - exact).std())


def test_precision_of_products_is_the_callers_again():
    before = torch.get_float32_matmul_precision()
    with pytest.raises(KeyError), fused._tensor_cores():
        assert torch.get_float32_matmul_precision() == "high"
        raise KeyError
    assert torch.get_float32_matmul_precision() == before
