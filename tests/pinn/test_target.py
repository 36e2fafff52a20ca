"""Networks, their jets, and the three tasks of a physics-informed surrogate."""

import pyro.poutine as poutine
import pytest
import torch
from torch.func import jvp, vmap

from bayesdd.networks import bnn, mlp
from bayesdd.networks.mlp import Network
from bayesdd.pinn import _target, equation
from bayesdd.target.target import Target
from bayesdd.task.program import running
from models import pde_bpinn, pde_cubic, pde_fisher

CUBIC = pde_cubic.CUBIC
SMALL = _target.surrogate(CUBIC, (5, 4))
TWO = Network((0.5, 1.0, 0.0), (2.0, 1.0, 0.5), (6, 5), (1.5, 2.0, 1.0))


def flat(net, seed=0):
    return torch.randn(net.dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def points(net, count=7, seed=1):
    return torch.randn(count, len(net.centre), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")  # torch's own, from jvp
@pytest.mark.parametrize(("net", "axes"), [(SMALL, 1), (TWO, 2)])
def test_jets_are_jvp_of_jvp(net, axes):
    layers, z = mlp.split(net, flat(net)), points(net)
    found = mlp.jet(net, layers, z, axes)
    torch.testing.assert_close(found.u, mlp.value(net, layers, z))
    for axis in range(axes):
        along = torch.zeros_like(z)
        along[:, axis] = 1

        def first(z, along=along):
            return jvp(lambda z: mlp.value(net, layers, z), (z,), (along,))[1]

        slope, curvature = jvp(first, (z,), (along,))
        torch.testing.assert_close(found.first[axis], slope)
        torch.testing.assert_close(found.second[axis], curvature)


def test_sites_and_the_flat_vector_are_one_order():
    """Task, ``split`` and the Pyro statements see the same network; prior draws have the declared spread."""
    rows = equation.measured(CUBIC, 12)
    task = _target.measurements(CUBIC, rows, network=SMALL, noise=0.1)
    assert task.dim == SMALL.dim
    draw = flat(SMALL)
    u = mlp.value(SMALL, mlp.split(SMALL, draw), mlp.inputs(SMALL, rows["x"], rows["alpha"]))
    by_hand = torch.distributions.Normal(u, 0.1).log_prob(rows["y"])
    torch.testing.assert_close(task.log_likelihood(rows, draw[None])[0], by_hand)
    torch.testing.assert_close(task.log_prior(draw[None])[0], torch.distributions.Normal(0.0, 1.0).log_prob(draw).sum())


@pytest.mark.parametrize("width", [10, 90])
def test_prior_functions_keep_their_size_whatever_the_width(width):
    net = Network((0.0,), (1.0,), (width, width))
    z = torch.linspace(-1, 1, 9, dtype=torch.float64)[:, None]
    draws = torch.randn(2000, net.dim, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    spread = vmap(lambda w: mlp.value(net, mlp.split(net, w), z))(draws).std(0)
    assert bool(((spread > 1.4) & (spread < 2.1)).all())


def test_the_residual_of_the_task_is_the_equation_by_automatic_differentiation():
    for family in (pde_fisher.FISHER_KPP, pde_bpinn.NONLINEAR):
        net = _target.surrogate(family, (4,))
        rows = equation.collocation(family, 9)
        task = _target.residual(family, rows, network=net, noise=0.3)
        draw = flat(net) / 2
        layers = mlp.split(net, draw)
        alpha = rows.get("alpha", torch.zeros(9, dtype=torch.float64))
        x = rows["x"].clone().requires_grad_(True)
        u = equation.jet_of(lambda x, a: mlp.value(net, layers, mlp.inputs(net, x, a)), x, alpha)  # noqa: B023
        r = family.residual(x, alpha, u, family.parameters) - rows["y"]
        by_hand = torch.distributions.Normal(r.detach(), 0.3).log_prob(torch.zeros(9, dtype=torch.float64))
        torch.testing.assert_close(task.log_likelihood(rows, draw[None])[0], by_hand)


@pytest.fixture(scope="module")
def tasks():
    return _target.target(CUBIC, equation.measured(CUBIC, 30), network=SMALL, collocation=40, alphas=5)


def test_a_target_has_one_network_and_three_scales(tasks):
    student = bnn.student(equation.measured(CUBIC, 8), network=SMALL)
    target = Target(tasks, student, "cpu", 0)
    assert target.joint.dim == SMALL.dim + 3 and student.dim == SMALL.dim + 1
    own = {"residual_noise", "boundary_noise"}
    assert set(target.joint.starts) - set(student.sites) == own and len(target.nuisance) == 2
    assert all(task.backend == "graph" for task in [*tasks, student])
    assert [task.size for task in tasks] == [30, 40, 10]


def test_a_student_of_another_width_is_refused_with_both_shapes(tasks):
    wide = bnn.student(equation.measured(CUBIC, 8), network=_target.surrogate(CUBIC, (6, 4)))
    with pytest.raises(ValueError, match=r"'weight_0' has shape \(2, 6\) in .* but \(2, 5\) in the target"):
        Target(tasks, wide, "cpu", 0)


def test_a_student_with_a_site_of_its_own_is_refused(tasks):
    free = bnn.student(equation.measured(CUBIC, 8), network=SMALL)
    with pytest.raises(ValueError, match=r"the student .* has latent site 'noise' .*, but the target has only"):
        Target(tasks[1:], free, "cpu", 0)


def test_an_unknown_constant_is_a_site_of_the_equation():
    family = pde_bpinn.NONLINEAR
    net = _target.surrogate(family, (4,))
    rows = pde_bpinn.sensors(family, 6, 0.1, 0)
    task = _target.residual(family, rows, network=net, noise=0.1, unknown={"k": (0.5, 1.0)})
    assert task.sites["k"] == () and list(task.sites)[-1] == "k"
    known = _target.residual(family, rows, network=net, noise=0.1)
    draw = torch.cat([flat(net), torch.tensor([0.7], dtype=torch.float64)])
    torch.testing.assert_close(
        task.log_likelihood(rows, draw[None]), known.log_likelihood(rows, draw[None, :-1]), rtol=1e-12, atol=0
    )
    with pytest.raises(ValueError, match=r"nonlinear Poisson has no constant 'q', only \['k'\]"):
        _target.residual(family, rows, network=net, unknown={"q": (0.0, 1.0)})


@pytest.mark.parametrize("make", [_target.measurements, _target.residual, _target.boundary])
def test_rows_outside_are_refused(make):
    rows = equation.measured(CUBIC, 4)
    rows["alpha"][2] = 5.0
    with pytest.raises(ValueError, match=r"alpha = 5 in row 2 lies outside its domain \[0.1, 1.9\]"):
        make(CUBIC, rows, network=SMALL)


def test_the_residual_is_an_ordinary_observation_of_zero():
    rows = equation.collocation(CUBIC, 5)
    task = _target.residual(CUBIC, rows, network=SMALL)
    with running():
        trace = poutine.trace(task.model).get_trace(**rows)
    site = trace.nodes["residual"]
    assert site["is_observed"] and bool((site["value"] == 0).all())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (((0.0,), (1.0, 1.0)), "as many centres as radii"),
        (((0.0,), (0.0,)), "positive radii"),
        (((0.0,), (1.0,), ()), "at least one unit"),
        (((0.0,), (1.0,), (3,), (1.0,)), "one a layer"),
    ],
)
def test_networks_that_are_none_are_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        Network(*arguments)
