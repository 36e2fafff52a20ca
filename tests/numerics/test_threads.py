"""torch takes one thread inside public functions, and the caller's number afterwards."""

import pytest
import torch

import bayesdd
from bayesdd.numerics.exclusive import exclusive
from bayesdd.numerics.threads import LARGE, NAMED, threads_for
from models import gaussian_mean


@pytest.fixture
def three(monkeypatch):
    monkeypatch.delenv(NAMED, raising=False)
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


@exclusive
def inside(order=0, *, inner=False, fault=False):
    if fault:
        raise ValueError
    if inner:
        inside()
    with threads_for(order):
        return torch.get_num_threads()


def test_one_inside_and_the_callers_afterwards(three):
    assert inside() == 1 and torch.get_num_threads() == 3
    with pytest.raises(ValueError):
        inside(fault=True)
    assert torch.get_num_threads() == 3


def test_large_matrices_get_the_callers(three):
    assert inside(LARGE) == 3 and inside(LARGE - 1) == 1 and inside(LARGE, inner=True) == 3
    assert torch.get_num_threads() == 3


def test_a_number_that_the_environment_names_is_kept(three, monkeypatch):
    monkeypatch.setenv(NAMED, "3")
    assert inside() == 3 and inside(LARGE) == 3


def test_the_models_of_public_functions_see_one(three):
    seen = []

    def model(x):
        seen.append(torch.get_num_threads())
        gaussian_mean.model(x)

    bayesdd.Task(model, {"x": torch.zeros(5, 2, dtype=torch.float64)})
    assert set(seen) == {1} and torch.get_num_threads() == 3
