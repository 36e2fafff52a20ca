"""One at a time: threads wait for each other, one thread may enter again, gradients are on inside."""

import threading

import pyro
import pyro.distributions as dist
import pytest
import torch

import bayesdd
from bayesdd.numerics.exclusive import exclusive


def test_threads_wait_and_one_may_enter_again():
    inside, seen = [], []

    @exclusive
    def inner():
        return len(inside)

    @exclusive
    def outer():
        inside.append(1)
        seen.append(inner())
        threading.Event().wait(0.01)
        inside.pop()

    threads = [threading.Thread(target=outer) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [1, 1, 1, 1]


@pytest.mark.parametrize("switched_off", [torch.no_grad, torch.inference_mode])
def test_gradients_are_on_inside(switched_off):
    @exclusive
    def slope():
        x = torch.ones(1, requires_grad=True)
        (2 * x).sum().backward()
        return float(x.grad)

    with switched_off():
        assert slope() == 2.0


def logistic(x, y=None):
    w = pyro.sample("w", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
    with pyro.plate("data", len(x)):
        return pyro.sample("y", dist.Bernoulli(logits=x @ w), obs=y)


def linear(x, y=None):
    w = pyro.sample("w", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
    with pyro.plate("data", len(x)):
        return pyro.sample("y", dist.Normal(x @ w, 0.5), obs=y)


def test_two_threads_give_what_one_gives_and_leave_nothing_behind():
    x = torch.randn(60, 2, generator=torch.Generator().manual_seed(0))
    tasks = [
        bayesdd.Task(logistic, {"x": x, "y": (x[:, 0] > 0).double()}),
        bayesdd.Task(linear, {"x": x, "y": x[:, 0]}),
    ]

    def weights(at):
        with torch.inference_mode():
            return bayesdd.distill(tasks[at], size=3, tolerance=1e3, seed=0, progress=False).weight

    alone, state = [weights(0), weights(1)], torch.random.get_rng_state()
    found = {}

    def go(name, at):
        found[name] = (at, weights(at))

    threads = [threading.Thread(target=go, args=(name, name % 2)) for name in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 2 and all(torch.equal(weight, alone[at]) for at, weight in found.values())
    assert torch.get_default_dtype() == torch.float32 and torch.equal(torch.random.get_rng_state(), state)
