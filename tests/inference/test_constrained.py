"""Constrained HMC against closed forms and quadrature; its force, its steps and its way back."""

import math
import shutil
from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch

from bayesdd.density.density import Density
from bayesdd.inference import constrained
from bayesdd.inference._constrained import CLOSE, leap
from bayesdd.inference.manifold import Lifted
from bayesdd.networks import Network, bnn
from bayesdd.task.task import Task
from models import linear_regression, logistic_regression


def bent(y, *, noise):
    """One outcome for two latents: the posterior is a thin parabola."""
    bend = pyro.sample("bend", dist.Normal(0.5, 1.0))
    shift = pyro.sample("shift", dist.Normal(0.0, 2.0))
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Normal(bend**2 + shift, noise), obs=y)


def bent_task(noise):
    return Task(partial(bent, noise=noise), {"y": torch.tensor([1.5], dtype=torch.float64)})


@pytest.fixture(scope="module")
def unknown():
    """Two tasks over the same latents: noise inferred, a prior that is not normal, weights that are not one."""
    rows = linear_regression.task_unknown_noise(rows=12, dim=1)
    weight = torch.linspace(0.0, 2.5, 12, dtype=torch.float64)
    return Density([(rows, rows.data, weight), (rows, {n: c[:3] for n, c in rows.data.items()}, None)])


def within(found, exact, error):
    assert bool(((found - exact).abs() < 4.5 * error).all()), (found, exact, error)


def batch_error(values):
    """Standard error of the mean over chains ``(chains, draws, ...)``, from the chains' own means."""
    return values.mean(1).std(0) / math.sqrt(len(values))


@pytest.mark.parametrize("noise", [1e-5, 0.5])
def test_linear_gaussian_whatever_the_noise(noise):
    """Fewer rows than latents: three directions of width ``noise``, three of the prior's."""
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(3, 6, generator=generator).double(), torch.randn(3, generator=generator).double()
    task = Task(partial(linear_regression.model, noise=noise), {"x": x, "y": y})
    draws = constrained(Density([(task, task.data, None)]), draws=50, chains=32, seed=0, warmup=30)
    mean, covariance = linear_regression.exact(x, y, noise=noise)
    count, root = 800, torch.linalg.cholesky(covariance)
    white = torch.linalg.solve_triangular(root, (draws.flat - mean).T, upper=False)
    within(white.mean(1), 0.0, 1 / math.sqrt(count))
    within(white @ white.T / white.shape[1], torch.eye(6), math.sqrt(2 / count))


@pytest.mark.parametrize("noise", [pytest.param(0.01, marks=pytest.mark.long), 0.7])
def test_a_bent_posterior_against_quadrature(noise):
    """The shift integrates out: p(bend) is N(0.5, 1) times N(1.5; bend^2, 4 + noise^2)."""
    task = bent_task(noise)
    draws = constrained(Density([(task, task.data, None)]), draws=60, chains=48, seed=1, warmup=40)
    bend, shift = draws.values.unbind(-1)
    grid = torch.linspace(-6, 6, 4001, dtype=torch.float64)
    spread = 4 + noise**2
    weight = torch.softmax(-0.5 * (grid - 0.5) ** 2 - 0.5 * (1.5 - grid**2) ** 2 / spread, 0)
    centre = 4 / spread * (1.5 - grid**2)  # mean of the shift given the bend
    for values, exact in (
        (bend, weight @ grid),
        (bend**2, weight @ grid**2),
        (bend**4, weight @ grid**4),
        (shift, weight @ centre),
        (shift**2, weight @ (centre**2 + 4 * noise**2 / spread)),
    ):
        within(values.mean(), exact, batch_error(values))
    assert not bool(draws.stats["diverging"].any())


@pytest.mark.long
def test_noise_inferred_from_weighted_rows_against_quadrature(unknown):
    draws = constrained(unknown, draws=80, chains=24, seed=2, warmup=60)
    grid = torch.cartesian_prod(
        torch.linspace(-6, 3, 400, dtype=torch.float64), torch.linspace(-4, 4, 400, dtype=torch.float64)
    )
    order = [unknown.starts[name][0] for name in ("sigma", "w")]
    points = torch.zeros_like(grid)
    points[:, order] = grid
    weight = torch.softmax(unknown.log_joint(points), 0)
    for power in (1, 2):
        within(draws.values.pow(power).mean((0, 1)), weight @ points**power, batch_error(draws.values**power))


def test_lifted_density_is_that_of_the_task():
    """Known noise, normal prior: what a point has in |q|^2 / 2 is minus its log joint density, up to a constant."""
    task = bent_task(0.1)
    density = Density([(task, task.data, None)])
    points = torch.randn(6, 2, generator=torch.Generator().manual_seed(0)).double()
    lifted = Lifted(density, points)
    q = lifted.lift(points)
    torch.testing.assert_close(lifted.points(q), points)
    assert float(lifted.constraints(q).abs().max()) < 1e-12
    total = density.log_joint(points) + 0.5 * ((lifted.rate * q) ** 2).sum(1)
    torch.testing.assert_close(total, total[:1].expand(6))


def test_force_is_the_slope_of_the_potential(unknown):
    points = torch.randn(2, unknown.dim, generator=torch.Generator().manual_seed(0)).double() / 2
    lifted = Lifted(unknown, points)
    q = lifted.lift(points)
    place, width = lifted.place(q), 1e-5
    for at in range(q.shape[1]):
        step = torch.zeros_like(q)
        step[:, at] = width
        slope = (lifted.place(q + step).extra - lifted.place(q - step).extra) / (2 * width)
        torch.testing.assert_close(slope, place.force[:, at], rtol=1e-6, atol=1e-6)
        row = (lifted.constraints(q + step) - lifted.constraints(q - step)) / (2 * width)
        whole = torch.cat([place.slope, torch.diag_embed(place.units)], 2)
        torch.testing.assert_close(row, whole[:, :, at], rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(place.lower @ place.lower.mT, whole @ whole.mT)


def test_steps_stay_on_the_manifold_keep_energy_and_come_back(unknown):
    points = torch.randn(4, unknown.dim, generator=torch.Generator().manual_seed(1)).double() / 2
    lifted = Lifted(unknown, points)
    first = lifted.place(lifted.lift(points))
    noise = torch.randn(first.q.shape, generator=torch.Generator().manual_seed(2)).double()
    momentum = first.tangent(noise)
    alive = torch.ones(4, dtype=torch.bool)

    def energy(place, momentum):
        return 0.5 * ((lifted.rate * place.q) ** 2).sum(1) + 0.5 * (momentum**2).sum(1) + place.extra

    errors = []
    for size, steps in ((0.02, 10), (0.01, 20)):
        place, moved = first, momentum
        for _ in range(steps):
            place, moved, arrived = leap(lifted, place, moved, size, alive)
            assert bool(arrived.all())
        assert float(lifted.constraints(place.q).abs().max()) < CLOSE
        torch.testing.assert_close(place.tangent(moved), moved)
        errors.append((energy(place, moved) - energy(first, momentum)).abs().mean())
        back, turned = place, -moved
        for _ in range(steps):
            back, turned, _ = leap(lifted, back, turned, size, alive)
        torch.testing.assert_close(back.q, first.q, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(turned, -momentum, rtol=1e-2, atol=1e-2)
    assert float(errors[1] / errors[0]) < 0.35  # second order: a quarter


def test_steps_that_do_not_come_back_are_refused():
    """Over the bottom of a thin parabola J turns by a right angle in a step: some steps end, but not where they say."""
    task = bent_task(1e-3)
    density = Density([(task, task.data, None)])
    points = torch.stack([torch.linspace(-0.6, 0.6, 64), torch.zeros(64)], 1).double()
    points[:, 1] = 1.5 - points[:, 0] ** 2
    lifted = Lifted(density, points)
    place = lifted.place(lifted.lift(points))
    noise = torch.randn(place.q.shape, generator=torch.Generator().manual_seed(0)).double()
    momentum, alive = place.tangent(3 * noise), torch.ones(64, dtype=torch.bool)
    there, moved, arrived = leap(lifted, place, momentum, 0.5, alive)
    assert 0 < int(arrived.sum()) < 64
    back, _, returned = leap(lifted, there, -moved, 0.5, arrived)
    assert bool(returned[arrived].all())
    torch.testing.assert_close(back.q[arrived], place.q[arrived], rtol=1e-3, atol=1e-3)


def network_task():
    net = Network((0.0,), (1.0,), (4, 3))
    x = torch.linspace(-1, 1, 6, dtype=torch.float64)
    return bnn.student({"x": x[:, None], "y": torch.sin(2 * x)}, network=net, noise=0.1)


@pytest.mark.long
@pytest.mark.skipif(not any(map(shutil.which, ("g++", "clang++"))), reason="no C++ compiler")
def test_compiled_draws_are_the_same():
    task = network_task()
    settings = {"draws": 3, "chains": 2, "seed": 0, "warmup": 2, "start": torch.full((2, task.dim), 0.3).double()}
    plain, fast = (constrained(Density([(task, task.data, None)]), compiled=c, **settings) for c in (False, True))
    torch.testing.assert_close(fast.values, plain.values, rtol=1e-6, atol=1e-6)
    assert float(plain.values.std()) > 0.1


def test_without_a_compiler_compiled_is_refused(monkeypatch):
    monkeypatch.setattr("torch._inductor.config.cpp.cxx", ("no-such-compiler",))
    monkeypatch.setattr("torch._inductor.config.force_disable_caches", True)
    task = network_task()
    with pytest.raises(ValueError, match=r"needs a C\+\+ compiler .* Leave out compiled=True"):
        constrained(
            Density([(task, task.data, None)]),
            draws=1,
            chains=2,
            seed=0,
            start=torch.zeros(2, task.dim, dtype=torch.float64),
            compiled=True,
        )


def two_sites(y):
    mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(y)):
        pyro.sample("a", dist.Normal(mean, 1.0), obs=y)
        pyro.sample("b", dist.Normal(mean, 2.0), obs=y)


def test_refusals():
    logistic = logistic_regression.task(rows=20)
    twice = Task(two_sites, {"y": torch.zeros(3, dtype=torch.float64)})
    start = torch.zeros(2, 1, dtype=torch.float64)
    with pytest.raises(ValueError, match=r"Bernoulli.*bayesdd\.inference\.hmc"):
        constrained(
            Density([(logistic, logistic.data, None)]),
            draws=1,
            chains=2,
            seed=0,
            start=torch.zeros(2, logistic.dim, dtype=torch.float64),
        )
    with pytest.raises(ValueError, match="one observed site"):
        constrained(Density([(twice, twice.data, None)]), draws=1, chains=2, seed=0, start=start)
    task = linear_regression.task(rows=3, dim=1)
    with pytest.raises(ValueError, match="weights that are not negative"):
        constrained(
            Density([(task, task.data, torch.tensor([1.0, -1.0, 1.0]).double())]),
            draws=1,
            chains=2,
            seed=0,
            start=start,
        )
    many = linear_regression.task(rows=2_001, dim=1)
    with pytest.raises(ValueError, match="2,001 are too many"):
        constrained(Density([(many, many.data, None)]), draws=1, chains=2, seed=0, start=start)
