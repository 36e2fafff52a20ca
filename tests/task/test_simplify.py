"""Recorded graphs after simplification: the same numbers, derivatives and independence from fewer operations."""

import functools

import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx

from bayesdd.task import engine
from bayesdd.task.engine import Engine, derivatives
from bayesdd.task.program import float64, joined
from bayesdd.task.simplify import MOST_KEPT, simplify
from models import categorical_regression, dbn, gaussian_mixture, logistic_regression, varying_intercepts

X = torch.linspace(-2.0, 2.0, 12, dtype=torch.float64).reshape(4, 3)
CONSTANT = torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64)


def calls(graph):
    """Operations by name, without their overload: aten.add.Tensor is add."""
    targets = [node.target for node in graph.graph.nodes if node.op.startswith("call")]
    return [t if isinstance(t, str) else t.__name__.partition(".")[0] for t in targets]


def recorded(function, *given):
    """The graph as recorded, and another one simplified."""
    plain, simple = make_fx(function)(*given), make_fx(function)(*given)
    with float64():
        simplify(simple, simple.graph)
    simple.recompile()
    return plain, simple


@pytest.mark.parametrize(
    "make",
    [
        logistic_regression.task,
        categorical_regression.task,
        gaussian_mixture.task,
        varying_intercepts.task,
        dbn.task_masked,
        dbn.task_categorical,
    ],
)
def test_models_keep_their_numbers_and_derivatives(make, monkeypatch):
    task = make(rows=30)
    draws = torch.randn(3, task.dim, generator=torch.Generator().manual_seed(0), dtype=torch.float64) / 4

    single = functools.partial(joined, task.program)
    fewer = Engine(single, "graph")
    ours = derivatives(fewer, draws, task.data)
    monkeypatch.setattr(engine, "simplify", lambda root, graph: None)
    plain = Engine(single, "graph")
    theirs = derivatives(plain, draws, task.data)
    for name, value in theirs.items():
        assert (ours[name] is None) == (value is None)
        # Autograd sums the parts of a gradient in another order where operations are shared.
        assert value is None or torch.allclose(ours[name], value, rtol=1e-12, atol=1e-12)
    assert torch.equal(ours[""], theirs[""])
    (before,), (after,) = plain._graphs.values(), fewer._graphs.values()
    assert len(calls(after)) < 0.8 * len(calls(before))


def test_idle_repeated_and_constant_operations_are_left_out():
    def function(x):
        scale = CONSTANT.log().exp().expand(4, 3)
        zero = torch.zeros_like(x).sum(1, keepdim=True).expand(4, 3)
        return ((x.view(4, 3).expand(4, 3) + zero) * 1.0 / scale).sin() + (x / scale).sin()

    plain, simple = recorded(function, X)
    assert calls(simple) == ["div", "sin", "add"]
    assert torch.equal(plain(X), simple(X))


def test_constants_that_are_large_are_not_kept():
    def function(x):
        return x + torch.ones(MOST_KEPT + 1, dtype=torch.float64).cos()

    plain, simple = recorded(function, X[0, :1])
    assert calls(simple) == calls(plain)


def test_random_operations_stay_what_they_are():
    def function(x):
        return x + torch.rand(3, dtype=torch.float64) - torch.rand(3, dtype=torch.float64)

    _, simple = recorded(function, X)
    assert sum("rand" in call for call in calls(simple)) == 2
    assert not torch.equal(simple(X), simple(X))


def test_changes_in_place_that_others_see_leave_a_graph_alone():
    def function(x):
        y = x * 1.0
        view = y[0]
        view.add_(x[1])
        return y + x.view(4, 3)

    plain, simple = recorded(function, X)
    assert calls(simple) == calls(plain)
    assert torch.equal(simple(X), function(X))


def test_changes_in_place_that_nobody_else_sees_are_no_hindrance():
    def function(x):
        within = (x >= -1).logical_and_(x <= 1)
        return torch.where(within, x, 0.0) + x.view(4, 3)

    plain, simple = recorded(function, X)
    assert "logical_and_" in calls(plain)
    assert "logical_and" in calls(simple)
    assert torch.equal(simple(X), function(X))


def test_rows_are_multiplied_at_once_by_a_matrix_that_they_share():
    """What torch.func leaves of a network's slopes by rows: the weights of every draw, copied for each row."""
    weights = torch.randn(4, 3, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    rows = torch.linspace(-1, 1, 4 * 5 * 2 * 3, dtype=torch.float64).reshape(20, 2, 3)

    def shared(rows, weights):
        return torch.bmm(rows, weights[:, None].expand(4, 5, 3, 2).reshape(20, 3, 2))

    def own(rows, weights):
        return torch.bmm(rows, weights.repeat(5, 1, 1).sin().clone().reshape(20, 3, 2))

    plain, simple = recorded(shared, rows, weights)
    assert "clone" in calls(plain) and "clone" not in calls(simple)
    torch.testing.assert_close(simple(rows, weights), plain(rows, weights), rtol=1e-14, atol=1e-14)
    (product,) = (node for node in simple.graph.nodes if node.target is torch.bmm)
    assert [len(node.meta["val"]) if "val" in node.meta else 4 for node in product.args] == [4, 4]
    plain, simple = recorded(own, rows, weights)
    assert torch.equal(simple(rows, weights), plain(rows, weights))


def test_zeros_of_both_signs_are_two_numbers():
    def function(x):
        return torch.stack([(x * 0.0).reciprocal(), (x * -0.0).reciprocal()])

    _, simple = recorded(function, X + 3)
    assert torch.equal(simple(X + 3), function(X + 3))


def test_changes_in_place_keep_the_dtype():
    def function(x):
        return x.float().mul_(x) + 0.0

    _, simple = recorded(function, X)
    assert simple(X).dtype == torch.float32


@pytest.mark.parametrize("function", [lambda x: x.view(4, 3), lambda x: CONSTANT.exp() + torch.zeros_like(x[0])])
def test_results_are_the_callers_own(function):
    _, simple = recorded(function, X)
    given = X.clone()
    first = simple(given).clone()
    simple(given).add_(1.0)
    assert torch.equal(given, X)
    assert torch.equal(simple(given), first)
