"""Unknowns learn from measurements alone, and their uncertainty enters fields: as in the inverse problem itself."""

import math
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from scipy.optimize import least_squares

from bayesdd import pinn
from bayesdd.networks import mlp
from bayesdd.networks.mlp import Network
from bayesdd.pinn.residuals import Networks, linearised
from bayesdd.pinn.response import response
from bayesdd.pinn.terms import equation_term, field_term, sobol

PROBLEM = pinn.Problem(
    inputs={"x": (0.0, 1.0)},
    outputs=("u",),
    equation=lambda s, p: s.u_xx + p.k * s.u_x + p.q,
    unknown={"q": pinn.function("x"), "k": (1.0, 0.2)},
)
NETS = Networks(PROBLEM, Network((0.5,), (0.5,), (12,), outputs=((0.0, 1.0),)), {"q": Network((0.5,), (0.5,), (3,))})


def test_without_measurements_unknowns_keep_their_prior_and_fields_move_with_them():
    """Var[s u] = s A^-1 s' + |s T|^2 with every matrix written out; s is any slope of the fields."""
    theta = torch.randn(2, NETS.dim, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    points = sobol(PROBLEM.ranges, 7, 0)
    terms = [
        field_term(PROBLEM, ["u"], points, torch.zeros(7, 1, dtype=torch.float64)),
        equation_term(PROBLEM, points),
    ]
    white = torch.cat(linearised(NETS, terms, theta)[1], 1) / 0.1
    found, width = response(NETS, terms, white), NETS.fields.dim
    assert found is not None and bool(found.followed.all()) and found.zero.tolist() == [False] * 7 + [True] * 7
    zero = found.rows(white)[:, 7:]
    precision = torch.eye(NETS.dim, dtype=torch.float64) + zero.mT @ zero
    slopes = torch.randn(2, 3, NETS.dim, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    turned = found.along(slopes)
    variance = turned @ torch.linalg.solve(precision, turned.mT)
    fields, unknowns = white[:, 7:, :width], white[:, 7:, width:]
    given = torch.linalg.inv(torch.eye(width, dtype=torch.float64) + fields.mT @ fields)
    reply = -given @ fields.mT @ unknowns
    own, rest = slopes[..., :width], slopes[..., width:]
    moved = own @ reply + rest
    torch.testing.assert_close(variance, own @ given @ own.mT + moved @ moved.mT, rtol=1e-6, atol=1e-8)
    steps = torch.randn(2, NETS.dim, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    torch.testing.assert_close(
        (slopes @ found.moves(steps)[..., None]), turned @ steps[..., None], rtol=1e-6, atol=1e-8
    )


def growth(**changed):
    """u' = c from u(0) = 0: u = c t."""
    given = {
        "inputs": {"t": (0.0, 2.0)},
        "outputs": {"u": (-2.0, 2.0)},
        "equation": lambda s, p: s.u_t - p.c,
        "conditions": [pinn.at(t=0.0, u=0.0)],
        "unknown": {"c": (0.5, 1.0)},
    }
    return pinn.Problem(**{**given, **changed})


def test_a_constant_has_its_exact_posterior_and_so_has_the_field():
    """Precision 1 + sum t^2 / sigma^2; u's sd is t times the constant's. Without data both are the prior's."""
    t = np.linspace(0.2, 2.0, 10)
    y = 1.3 * t + 0.2 * np.random.default_rng(0).normal(size=10)
    new = np.array([0.5, 1.0, 2.0])
    for data, exact in (({"t": t, "u": y}, (1 + (t**2).sum() / 0.04) ** -0.5), (None, 1.0)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", pinn.FitWarning)
            noise = None if data is None else 0.2
            surrogate = pinn.fit(growth(), data, noise=noise, seed=0, hidden=(6,), modes=1, steps=200)
        mean, sd = surrogate.constants["c"]
        right = 0.5 if data is None else exact**2 * (0.5 + (t * y).sum() / 0.04)
        assert abs(math.log(sd / exact)) < 0.03 and abs(mean - right) < 0.05 * exact
        np.testing.assert_allclose(surrogate.predict({"t": new})["u"][1], new * exact, rtol=0.05)


def test_a_constant_keeps_its_posterior_however_sharp_the_equation_is():
    """Rounding once made it follow the equation's rows as if those were measurements: four times too sure."""
    t = np.linspace(0.2, 2.0, 10)
    data = {"t": t, "u": 1.3 * t}
    surrogate = pinn.fit(growth(), data, noise=0.2, seed=0, hidden=(6,), modes=1, steps=200)
    zero = torch.tensor([term.observed is None for term in surrogate.terms for _ in term.names])
    exact = (1 + (t**2).sum() / 0.04) ** -0.5
    for sharper in (1.0, 1e-2, 1e-4):
        noise = torch.where(zero, sharper * surrogate.noise, surrogate.noise)
        again = replace(surrogate, noise=noise)
        assert bool(again.response.followed.all())
        assert abs(math.log(again.constants["c"][1] / exact)) < 0.03


def test_a_constant_that_conditions_determine_keeps_what_they_say():
    """u'' = -k u with u(0) = u(1) = 0 and u'(0) = pi: k = pi^2, without any measurement."""
    problem = pinn.Problem(
        inputs={"x": (0.0, 1.0)},
        outputs={"u": (0.0, 1.0)},
        equation=lambda s, p: s.u_xx + p.k * s.u,
        conditions=[pinn.at(x=(0.0, 1.0), u=0.0), pinn.at(x=0.0, u_x=math.pi)],
        unknown={"k": (8.0, 4.0)},
    )
    surrogate = pinn.fit(problem, seed=0, hidden=(8,), modes=2, steps=150)
    mean, sd = surrogate.constants["k"]
    assert not bool(surrogate.response.followed.any())
    assert abs(mean - math.pi**2) < 0.1 and sd < 0.2


def test_a_source_and_its_field_have_the_intervals_of_the_linear_inverse_problem():
    """A rod at rest, u'' = -q, u(0) = u(1) = 0: u is q through Green's function, q has the prior of its network."""
    x, count = np.linspace(0.02, 0.98, 40), 101
    place = np.linspace(0, 1, count)
    source = 3 * np.exp(-20 * (place - 0.6) ** 2)

    def green(at):
        both = np.minimum(at[:, None], place) * (1 - np.maximum(at[:, None], place))
        return both * np.r_[0.5, np.ones(count - 2), 0.5] / (count - 1)

    network = Network((0.5,), (0.5,), (10, 10))
    draws = torch.randn(4000, network.dim, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    h = torch.from_numpy(2 * place - 1)[:, None].expand(len(draws), -1, -1)
    for at, (weight, bias) in enumerate(mlp.split(network, draws)):
        h = (h.tanh() if at else h) @ weight + bias[:, None]
    prior, sigma = np.cov(h[..., 0].numpy().T), 0.005
    y = green(x) @ source + sigma * np.random.default_rng(3).normal(size=len(x))
    gain = np.linalg.solve(green(x) @ prior @ green(x).T + sigma**2 * np.eye(len(x)), green(x) @ prior)
    exact, wide = gain.T @ y, prior - (green(x) @ prior).T @ gain
    problem = pinn.Problem(
        inputs={"x": (0.0, 1.0)},
        outputs=("u",),
        equation=lambda s, p: s.u_xx + p.q,
        conditions=[pinn.at(x=(0.0, 1.0), u=0.0)],
        unknown={"q": pinn.function("x", sd=2.0)},
    )
    surrogate = pinn.fit(problem, {"x": x, "u": y}, seed=0, hidden=(10, 10), modes=2, steps=120)
    found = surrogate.predict({"x": place})
    of_field = np.sqrt(np.einsum("ij,jk,ik->i", green(place), wide, green(place)).clip(0))
    inner = slice(10, -10)  # at the ends a source moves no field, and its prior decides
    for name, true, best, sd in (
        ("u", green(place) @ source, green(place) @ exact, of_field),
        ("q", source, exact, np.sqrt(wide.diagonal().clip(0))),
    ):
        mean, own = (one[inner] for one in found[name])
        assert np.sqrt(np.mean((mean - true[inner]) ** 2)) < 2 * np.sqrt(np.mean((best - true)[inner] ** 2))
        assert 0.8 < own.mean() / sd[inner].mean() < 2  # features around a mode are more than its network
        assert np.mean(np.abs(mean - true[inner]) <= 1.645 * own) > 0.85


def lotka_volterra():
    return pinn.Problem(
        inputs={"t": (0.0, 4.0)},
        parameters={"start": (0.5, 2.0)},
        outputs=("prey", "hunters"),
        equation=lambda s, p: (
            s.prey_t - p.a * s.prey + s.prey * s.hunters,
            s.hunters_t - p.c * s.prey * s.hunters + s.hunters,
        ),
        conditions=[pinn.at(t=0.0, prey=lambda s, p: s.start, hunters=1.0)],
        unknown={"a": (1.0, 0.5), "c": (1.0, 0.5)},
    )


def solved(rates, at):
    """Prey and hunters ``(2, N)`` by SciPy."""
    found = np.empty((2, len(at["t"])))
    for start in np.unique(at["start"]):
        here = at["start"] == start
        path = solve_ivp(
            lambda t, y: [rates[0] * y[0] - y[0] * y[1], rates[1] * y[0] * y[1] - y[1]],
            (0, 4),
            [start, 1.0],
            rtol=1e-9,
            atol=1e-11,
            dense_output=True,
        )
        found[:, here] = path.sol(at["t"][here])
    return found


@pytest.mark.long
@pytest.mark.parametrize("hidden", [(16, 16), (40, 40)])
def test_rates_of_a_nonlinear_system_have_the_posterior_of_its_inverse_problem(hidden):
    """Means and sds of both rates against Gauss-Newton steps on SciPy's solution; narrow networks and widened ones."""
    rng, noise = np.random.default_rng(0), 0.1
    at = {"t": rng.uniform(0, 4, 60), "start": np.repeat(np.linspace(0.6, 2.0, 6), 10)}
    y = solved([1.5, 0.8], at) + noise * rng.normal(size=(2, 60))
    rates, prior = np.array([1.5, 0.8]), 1 / 0.5**2
    for _ in range(5):
        off = (solved(rates, at) - y).ravel() / noise
        slopes = [(solved(rates + step, at) - solved(rates - step, at)).ravel() / 2e-5 for step in 1e-5 * np.eye(2)]
        jacobian = np.stack(slopes, 1) / noise
        precision = jacobian.T @ jacobian + prior * np.eye(2)
        rates = rates - np.linalg.solve(precision, jacobian.T @ off + prior * (rates - 1.0))
    sd = np.sqrt(np.diag(np.linalg.inv(precision)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", pinn.FitWarning)
        surrogate = pinn.fit(
            lotka_volterra(),
            {**at, "prey": y[0], "hunters": y[1]},
            noise=noise,
            seed=0,
            hidden=hidden,
            modes=1,
            steps=200,
            points=400,
        )
    found = np.array([surrogate.constants[name] for name in ("a", "c")])
    assert (np.abs(found[:, 0] - rates) < 0.3 * sd).all()
    np.testing.assert_allclose(found[:, 1], sd, rtol=0.1)


def test_constants_that_a_search_has_not_found_have_their_exact_posterior_all_the_same():
    """A spring that hardens: few steps leave both of its constants far off, along a ridge that bends."""

    def path(a, b, t):
        slope = lambda _, y: [y[1], -0.1 * y[1] - a * y[0] - b * y[0] ** 3]  # noqa: E731
        return solve_ivp(slope, (0, 4), [1.2, 0.0], rtol=1e-9, atol=1e-11, dense_output=True).sol(t)[0]

    rng = np.random.default_rng(0)
    t, noise = rng.uniform(0, 3, 40), 0.03
    y = path(1.0, 0.8, t) + noise * rng.normal(size=40)
    exact = least_squares(lambda c: np.r_[(path(*c, t) - y) / noise, c - 0.5], [0.5, 0.5])
    spring = pinn.Problem(
        inputs={"t": (0.0, 4.0)},
        outputs=("u",),
        equation=lambda s, p: s.u_tt + 0.1 * s.u_t + p.a * s.u + p.b * s.u**3,
        conditions=[pinn.at(t=0.0, u=1.2, u_t=0.0)],
        unknown={"a": (0.5, 1.0), "b": (0.5, 1.0)},
    )
    surrogate = pinn.fit(spring, {"t": t, "u": y}, seed=0, hidden=(8,), modes=2, steps=150)
    scale = surrogate.measurement_noise["u"] / noise
    assert abs(math.log(scale)) < 0.2
    sds = scale * np.sqrt(np.diag(np.linalg.inv(exact.jac.T @ exact.jac)))
    for (mean, sd), right, spread in zip(surrogate.constants.values(), exact.x, sds, strict=True):
        assert abs(mean - right) < 0.1 * spread and abs(math.log(sd / spread)) < 0.1
    new = np.linspace(0, 4, 50)
    mean, sd = surrogate.predict({"t": new})["u"]
    assert np.max(np.abs(mean - path(*exact.x, new))) < 0.2 * sd.max()
