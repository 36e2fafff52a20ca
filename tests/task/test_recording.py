"""Recorded graphs: the function's own results on other values, and nothing that values decide."""

import subprocess
import sys

import pytest
import torch
from torch.func import grad, jacrev, vmap
from torch.fx import GraphModule

from bayesdd.task.recording import recorded

X = torch.linspace(-2.0, 2.0, 12, dtype=torch.float64).reshape(4, 3)
CONSTANT = torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64)


def in_place(x):
    found = torch.zeros_like(x)
    found[1] = x[0] * CONSTANT
    found[0].add_(x[1].exp())
    return found


def slope(x):
    leaf = x.detach().requires_grad_()
    return torch.autograd.grad((leaf.exp() * leaf.tanh()).sum(), leaf)[0]


FUNCTIONS = {
    "autograd": slope,
    "constants, parts of a result": lambda x: torch.cat([part * CONSTANT for part in x.sort(0)[0].split(1)]),
    "changes in place, through views": in_place,
    "a new constant, changed": lambda x: torch.tensor([0.0, 0.0, 1.0]).add_(1.0) * x,
    "integers as an index": lambda x: x[torch.tensor([3, 0, 0])],
    "a number read out of a constant": lambda x: x * torch.arange(4.0).sum().item(),
    "gradients, batched": vmap(grad(lambda row: (row.sigmoid().log() * CONSTANT).sum())),
    "Hessians, batched": vmap(jacrev(grad(lambda row: (row.exp() * row.tanh()).prod()))),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_graph_is_the_function(name):
    function = FUNCTIONS[name]
    graph = GraphModule(*recorded(function, [X]))
    for x in (X, X.flip(0) / 3):
        torch.testing.assert_close(graph(x), function(x), rtol=0, atol=0)
    torch.testing.assert_close(CONSTANT, torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64))


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x * x.max().item(),
        lambda x: x if x.sum() > 0 else -x,
        lambda x: x[x > 0],
        lambda x: x[(x > 0).nonzero()[:, 0]],
        lambda x: x * in_place(x)[0, 0].item(),
    ],
)
def test_what_values_decide_is_refused(function):
    with pytest.raises(RuntimeError, match="value of the data"):
        recorded(function, [X])


@pytest.mark.long
def test_no_compiler_is_imported():
    """A process begins two seconds earlier without torch's compiler and the algebra that it needs."""
    code = (
        "import sys; from models import logistic_regression as m; t = m.task(rows=20); import torch\n"
        "for _ in range(12): t.likelihood_hessian(t.data, torch.ones(20).double(), torch.zeros(t.dim).double())\n"
        "for _ in range(12): t.joint_gradient(t.data, torch.ones(20).double(), torch.zeros(2, t.dim).double())\n"
        "print([name for name in ('torch._dynamo', 'sympy') if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
