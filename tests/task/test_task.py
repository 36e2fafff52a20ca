"""Task: log densities of many forms of model against plain Pyro traces, one row at a time, and against formulas."""

import functools
import inspect
import math

import numpy as np
import pyro
import pyro.distributions as dist
import pyro.poutine as poutine
import pytest
import torch
from pyro.nn import PyroModule, PyroSample
from scipy import stats
from torch.distributions import biject_to
from torch.func import jvp, vmap

from bayesdd import Task, kinds

# torch.func.jvp scripts its decompositions on first use.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")

N, D, T, G, K = 5, 3, 4, 3, 4


def generator():
    return torch.Generator().manual_seed(0)


def normal(*shape):
    return torch.randn(*shape, generator=generator(), dtype=torch.float64)


def whole(high, *shape):
    return torch.randint(0, high, shape, generator=generator())


X, Y, COUNTS, LABELS = normal(N, D), normal(N) + 1, whole(5, N), whole(2, N)
FORMS = {}


def form(**columns):
    def keep(model):
        FORMS[model.__name__] = (model, columns)
        return model

    return keep


def weights(*shape):
    return pyro.sample("w", dist.Normal(0.0, 1.0).expand(shape).to_event(len(shape)))


@form(x=X, y=LABELS)
def bernoulli(x, y=None):
    w = weights(D)
    with pyro.plate("data", len(x)):
        return pyro.sample("y", dist.Bernoulli(logits=x @ w), obs=y)


@form(x=X, y=COUNTS)
def poisson_offset(x, y=None, offset=0.3):
    w = weights(D)
    with pyro.plate("data", len(x)):
        return pyro.sample("y", dist.Poisson((x @ w + offset).exp()), obs=y)


@form(x=X, trials=COUNTS + 1, y=torch.minimum(whole(6, N), COUNTS + 1))
def binomial(x, trials, y=None):
    w = weights(D)
    with pyro.plate("data", len(x)):
        return pyro.sample("y", dist.Binomial(trials, logits=x @ w), obs=y)


@form(x=X, y=COUNTS)
def negative_binomial(x, y=None):
    w, size = weights(D), pyro.sample("size", dist.Gamma(2.0, 1.0))
    with pyro.plate("data", len(x)):
        return pyro.sample("y", dist.NegativeBinomial(size, logits=x @ w), obs=y)


@form(x=X, y=COUNTS)
def zero_inflated(x, y=None):
    w, gate = weights(D), pyro.sample("gate", dist.Beta(2.0, 2.0))
    with pyro.plate("data", len(x)):
        return pyro.sample("y", dist.ZeroInflatedPoisson((x @ w).exp(), gate=gate), obs=y)


@form(x=X, y=Y)
def student_t(x, y=None):
    w, nu = weights(D), pyro.sample("nu", dist.Gamma(2.0, 0.1))
    with pyro.plate("data", len(x)):
        return pyro.sample("y", dist.StudentT(nu, x @ w, 0.5), obs=y)


@form(x=X, y=Y.exp())
def lognormal(x, y=None):
    w, sigma = weights(D), pyro.sample("sigma", dist.HalfCauchy(1.0))
    with pyro.plate("data", len(x)):
        return pyro.sample("y", dist.LogNormal(x @ w, sigma), obs=y)


@form(y=Y.exp())
def transformed(y=None):
    w = weights()
    with pyro.plate("data", N if y is None else len(y)):
        twice = [dist.transforms.AffineTransform(0.0, 2.0), dist.transforms.ExpTransform()]
        return pyro.sample("y", dist.TransformedDistribution(dist.Normal(w, 1.0), twice), obs=y)


@form(y=Y.sigmoid())
def beta(y=None):
    a, b = pyro.sample("a", dist.Gamma(2.0, 1.0)), pyro.sample("b", dist.Exponential(1.0))
    with pyro.plate("data", N if y is None else len(y)):
        return pyro.sample("y", dist.Beta(a, b), obs=y)


@form(y=Y)
def dependent_support(y):
    b = pyro.sample("b", dist.HalfNormal(2.0))
    a = pyro.sample("a", dist.Uniform(0.0, b))
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Normal(a, b), obs=y)


@form(y=normal(N, 3))
def lkj(y):
    scale = pyro.sample("scale", dist.HalfNormal(1.0).expand([3]).to_event(1))
    corr = pyro.sample("corr", dist.LKJCholesky(3, 2.0))
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.MultivariateNormal(torch.zeros(3), scale_tril=scale[:, None] * corr), obs=y)


@form(y=whole(K, N))
def dirichlet(y=None):
    p = pyro.sample("p", dist.Dirichlet(torch.ones(K) * 2))
    with pyro.plate("data", N if y is None else len(y)):
        return pyro.sample("y", dist.Categorical(p), obs=y)


@form(x=X, y=whole(K, N))
def ordered_logistic(x, y=None):
    w = weights(D)
    with pyro.plate("data", len(x)):
        return pyro.sample("y", dist.OrderedLogistic(x @ w, torch.tensor([-1.0, 0.0, 1.0])), obs=y)


@form(y=torch.nn.functional.one_hot(whole(K, N), K) * 3)
def multinomial(y):
    p = pyro.sample("p", dist.Dirichlet(torch.ones(K)))
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Multinomial(3, p), obs=y)


@form(y=Y)
def mixture(y=None):
    p = pyro.sample("p", dist.Dirichlet(torch.ones(2)))
    mean = pyro.sample("mean", dist.Normal(0.0, 2.0).expand([2]).to_event(1))
    with pyro.plate("data", N if y is None else len(y)):
        parts = dist.Normal(mean, torch.tensor([0.5, 1.0]))
        return pyro.sample("y", dist.MixtureSameFamily(dist.Categorical(p), parts), obs=y)


@form(group=torch.arange(N) % G, x=X, y=Y)
def group_plate(group, x, y=None):
    w, tau = weights(D), pyro.sample("tau", dist.HalfNormal(1.0))
    with pyro.plate("groups", G):
        z = pyro.sample("z", dist.Normal(0.0, tau))
    with pyro.plate("data", len(x)):
        return pyro.sample("y", dist.Normal(z[group] + x @ w, 1.0), obs=y)


@form(group=torch.arange(N) % G, y=Y)
def nested_group_plates(group, y):
    with pyro.plate("groups", G, dim=-2), pyro.plate("kinds", 2, dim=-1):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Normal(z.sum(-1)[group], 1.0), obs=y)


@form(y=normal(N, T, 2))
def sequence(y):
    a = pyro.sample("a", dist.Uniform(-1.0, 1.0))
    mean = torch.cat([torch.zeros_like(y[:, :1]), a * y[:, :-1]], 1)
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Normal(mean, 0.5).to_event(2), obs=y)


@form(y=normal(N, T))
def time_plate(y):
    a = pyro.sample("a", dist.Normal(0.0, 1.0))
    mean = torch.cat([torch.zeros_like(y[:, :1]), a * y[:, :-1]], 1)
    with pyro.plate("data", len(y), dim=-2), pyro.plate("time", T, dim=-1):
        pyro.sample("y", dist.Normal(mean, 0.5), obs=y)


@form(y=normal(N, T))
def site_a_step(y):
    a = pyro.sample("a", dist.Normal(0.0, 1.0))
    before = torch.zeros_like(y[:, 0])
    with pyro.plate("data", len(y)):
        for t in range(T):
            before = pyro.sample(f"y_{t}", dist.Normal(a * before, 0.5), obs=y[:, t])


@form(y=torch.where(normal(N, T) > 1, torch.nan, normal(N, T)))
def missing_entries(y):
    a = pyro.sample("a", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(y)):
        noise = dist.Normal(a, 0.5).expand(y.shape).mask(~y.isnan()).to_event(1)
        pyro.sample("y", noise, obs=y.nan_to_num())


@form(x=X, y=torch.where(normal(N, T) > 1, torch.nan, normal(N, T)))
def nan_masked(x, y=None):
    a = pyro.sample("a", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(x)):
        return pyro.sample("y", dist.NanMaskedNormal((a * x[:, :1]).expand(-1, T), 0.5).to_event(1), obs=y)


@form(x=X, y=torch.where(normal(N, T) > 1, torch.nan, normal(N, T)))
def nan_masked_multivariate(x, y=None):
    a, corr = pyro.sample("a", dist.Normal(0.0, 1.0)), pyro.sample("corr", dist.LKJCholesky(T, 2.0))
    with pyro.plate("data", len(x)):
        noise = dist.NanMaskedMultivariateNormal((a * x[:, :1]).expand(-1, T), scale_tril=corr)
        return pyro.sample("y", noise, obs=y)


@form(x=X, seen=LABELS, y=Y)
def scale_and_mask(x, seen, y):
    w = weights(D)
    with pyro.plate("data", len(x)), poutine.scale(scale=0.7), poutine.mask(mask=seen == 1):
        pyro.sample("y", dist.Normal(x @ w, 1.0), obs=y)


@form(x=X, y=Y)
def scaled_prior(x, y):
    with poutine.scale(scale=0.5):
        w = weights(D)
    with pyro.plate("data", len(x)):
        pyro.sample("y", dist.Normal(x @ w, 1.0), obs=y)


@form(x=X, y=Y)
def factor(x, y):
    w = weights(D)
    pyro.factor("penalty", -w.abs().sum())
    with pyro.plate("data", len(x)):
        pyro.factor("y", -(y - x @ w).abs())


@form(x=X, y=Y)
def deterministic(x, y=None):
    tau = pyro.deterministic("tau", pyro.sample("log_tau", dist.Normal(0.0, 1.0)).exp())
    w = weights(D)
    pyro.deterministic("fitted", x @ w)
    with pyro.plate("data", len(x)):
        mean = pyro.deterministic("mean", x @ w)
        return pyro.sample("y", dist.Normal(mean, tau), obs=y)


@form(x=X, y=Y)
def bnn(x, y=None):
    hidden = x
    for layer, (i, o) in enumerate([(D, 4), (4, 3), (3, 1)]):
        w = pyro.sample(f"w{layer}", dist.Normal(0.0, 1.0).expand([i, o]).to_event(2))
        b = pyro.sample(f"b{layer}", dist.Normal(0.0, 1.0).expand([o]).to_event(1))
        hidden = (hidden @ w + b).tanh()
    with pyro.plate("data", len(x)):
        return pyro.sample("y", dist.Normal(hidden[:, 0], 0.3), obs=y)


@form(x=X, a=Y, b=LABELS)
def several_sites(x, a=None, b=None):
    w = weights(D)
    with pyro.plate("data", len(x)):
        a = pyro.sample("a", dist.Normal(x @ w, 1.0), obs=a)
        b = pyro.sample("b", dist.Bernoulli(logits=a * w[0]), obs=b)
    return a, b


@form(t=normal(N), y=Y)
def pinn(t, y):
    """Residual of u' = -k u, with u a small network."""
    k = pyro.sample("k", dist.LogNormal(0.0, 0.5))
    w = pyro.sample("w", dist.Normal(0.0, 1.0).expand([2, 4]).to_event(2))
    value, slope = jvp(lambda s: (s[:, None] * w[0]).tanh() @ w[1], (t,), (torch.ones_like(t),))
    with pyro.plate("data", len(t)):
        pyro.sample("residual", dist.Normal(slope + k * value, 0.1), obs=torch.zeros_like(t))
        pyro.sample("y", dist.Normal(value, 0.1), obs=y)


@form(y=normal(N, T, 1))
def hidden_markov(y):
    a, b = pyro.sample("a", dist.Normal(0.0, 0.5)), pyro.sample("b", dist.HalfNormal(1.0))
    eye = torch.eye(1)
    with pyro.plate("data", len(y)):
        start = dist.MultivariateNormal(torch.zeros(1), eye)
        step, noise = (dist.MultivariateNormal(torch.zeros(1), eye * s) for s in (b, 0.5))
        hmm = dist.GaussianHMM(start, a * eye, step, eye, noise, duration=T)
        pyro.sample("y", hmm.expand([len(y)]), obs=y)


@form(y=whole(2, N, T).double())
def discrete_markov(y):
    stay, on = pyro.sample("stay", dist.Beta(2.0, 2.0)), pyro.sample("on", dist.Beta(2.0, 2.0))
    table = torch.stack([torch.stack([stay, 1 - stay]), torch.stack([1 - stay, stay])]).log()
    with pyro.plate("data", len(y)):
        seen = dist.Bernoulli(torch.stack([on, 1 - on]))
        pyro.sample("y", dist.DiscreteHMM(torch.zeros(2), table, seen, duration=T).expand([len(y)]), obs=y)


@form(x=X, y=Y)
def control_flow(x, y):
    w = weights(D)
    mean = x @ w if float(w.detach().sum()) < 1e9 else 0 * x[:, 0]
    with pyro.plate("data", len(x)):
        pyro.sample("y", dist.Normal(mean, 1.0), obs=y)


class Regression(PyroModule):
    def __init__(self):
        super().__init__()
        self.linear = PyroModule[torch.nn.Linear](D, 1)
        self.linear.weight = PyroSample(dist.Normal(0.0, 1.0).expand([1, D]).to_event(2))
        self.linear.bias = PyroSample(dist.Normal(0.0, 10.0).expand([1]).to_event(1))

    def forward(self, x, y=None):
        mean = self.linear(x).squeeze(-1)
        with pyro.plate("data", len(x)):
            return pyro.sample("y", dist.Normal(mean, 1.0), obs=y)


FORMS["pyro_module"] = (Regression(), {"x": X, "y": Y})


@functools.cache
def build(name):
    model, columns = FORMS[name]
    return Task(model, columns)


def draws_of(task, count=2):
    return 0.5 * torch.randn(count, task.dim, generator=generator(), dtype=torch.float64)


def traced(model, values, columns):
    torch.set_default_dtype(torch.float64)
    try:
        with pyro.validation_enabled(False):
            trace = poutine.trace(poutine.condition(model, data=values)).get_trace(**columns)
        trace.compute_log_prob()
        return trace
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("name", FORMS)
def test_log_densities_are_those_of_plain_pyro_traces(name):
    task = build(name)
    draws = draws_of(task)
    values = {site: v.detach() for site, v in task.constrain(draws).items() if site in task.sites}
    prior, likelihood = [], torch.empty(len(draws), N, dtype=torch.float64)
    outside = {"factor": "penalty"}.get(name)
    for s in range(len(draws)):
        one = {site: value[s] for site, value in values.items()}
        for row in range(N):
            trace = traced(task.model, one, {key: column[row : row + 1] for key, column in task.data.items()})
            nodes = {k: node for k, node in trace.nodes.items() if node["type"] == "sample" and k not in one}
            likelihood[s, row] = sum(node["log_prob_sum"] for k, node in nodes.items() if k != outside)
        total = trace.nodes[outside]["log_prob_sum"] if outside else 0.0
        for site in task.structure.sites:
            node = trace.nodes[site.name]
            transform, free = biject_to(node["fn"].support), draws[s, site.start : site.stop].reshape(site.free_shape)
            jacobian = transform.log_abs_det_jacobian(free, one[site.name]).sum()
            torch.testing.assert_close(transform(free), one[site.name], check_dtype=False)
            total += node["log_prob_sum"] + jacobian
        prior.append(total)
    torch.testing.assert_close(task.log_likelihood(task.data, draws), likelihood, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(task.log_prior(draws), torch.stack(prior).double(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", FORMS)
def test_backend_is_the_fast_one_unless_the_model_refuses(name):
    loops = {"discrete_markov", "control_flow"}
    slow = {"pyro_module": "vmap", **dict.fromkeys(loops, "loop")}
    assert build(name).backend == slow.get(name, "graph")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", ["bernoulli", "lkj", "ordered_logistic", "pyro_module"])
def test_default_dtype_and_global_generator_neither_matter_nor_change(name, dtype):
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        state = torch.random.get_rng_state()
        task = Task(*FORMS[name])
        draws = draws_of(task)
        values = task.log_likelihood(task.data, draws), task.log_prior(draws), *task.constrain(draws).values()
        task.prior_draws(2, seed=0)
        assert torch.get_default_dtype() == dtype and torch.equal(torch.random.get_rng_state(), state)
    finally:
        torch.set_default_dtype(before)
    assert {value.dtype for value in values} == {torch.float64}
    torch.testing.assert_close(values[0], build(name).log_likelihood(task.data, draws), rtol=0, atol=0)


def test_observed_columns_are_recognised_in_memory_slices_and_copies():
    for name in ("bernoulli", "site_a_step", "missing_entries", "nan_masked", "time_plate", "several_sites"):
        task = build(name)
        inputs = {"x"} & set(task.data)
        assert {o.column for o in task.structure.observed} == set(task.data) - inputs, name


def test_equal_columns_are_told_apart():
    def model(before, y=None):
        a = pyro.sample("a", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(before)):
            return pyro.sample("y", dist.Poisson((a * before).exp()), obs=y)

    task = Task(model, {"before": COUNTS, "y": COUNTS})
    assert [o.column for o in task.structure.observed] == ["y"]
    assert task.column_kinds == {"before": kinds.fixed, "y": kinds.count}


def test_kinds_follow_the_sites():
    expected = {
        "bernoulli": {"x": kinds.real, "y": kinds.binary},
        "binomial": {"x": kinds.real, "trials": kinds.fixed, "y": kinds.trials},
        "lognormal": {"x": kinds.real, "y": kinds.positive},
        "dirichlet": {"y": kinds.fixed},
        "zero_inflated": {"x": kinds.real, "y": kinds.fixed},
        "group_plate": {"group": kinds.fixed, "x": kinds.real, "y": kinds.real},
        "scale_and_mask": {"x": kinds.real, "seen": kinds.fixed, "y": kinds.real},
    }
    for name, wanted in expected.items():
        assert build(name).column_kinds == wanted, name


def test_whole_numbers_under_a_continuous_density_are_floats_that_can_move():
    def model(group, days):
        rate = pyro.sample("rate", dist.Gamma(2.0, 1.0).expand([2]).to_event(1))
        with pyro.plate("data", len(days)):
            pyro.sample("days", dist.Exponential(rate[group]), obs=days)

    days = torch.tensor([3, 1, 14, 2])
    task = Task(model, {"group": torch.tensor([0, 1, 0, 1]), "days": days})
    assert task.data["days"].dtype == torch.float64 and task.data["group"].dtype == torch.int64
    assert task.column_kinds == {"group": kinds.fixed, "days": kinds.positive}
    draw = torch.zeros(1, 2, dtype=torch.float64)
    torch.testing.assert_close(task.log_likelihood(task.data, draw), -days.double()[None])


def test_relaxed_observations_are_float64_and_linear_between_the_classes():
    task = build("bernoulli")
    draws = draws_of(task)
    soft, zero, one = (
        task.log_likelihood({"x": X, "y": torch.full((N,), y, dtype=torch.float64)}, draws) for y in (0.3, 0.0, 1.0)
    )
    assert task.data["y"].dtype == torch.float64
    torch.testing.assert_close(soft, 0.7 * zero + 0.3 * one)


def test_a_group_index_held_as_floats_cannot_move():
    def model(group, y):
        z = pyro.sample("z", dist.Normal(0.0, 1.0).expand([G]).to_event(1))
        with pyro.plate("data", len(y)):
            pyro.sample("y", dist.Normal(z[group.long()], 1.0), obs=y)

    group = (torch.arange(N) % G).double()
    assert Task(model, {"group": group, "y": Y}).column_kinds["group"] is kinds.fixed
    assert Task(model, {"group": group, "y": Y}, kinds={"group": kinds.real}).column_kinds["group"] is kinds.real


def test_deterministic_sites_are_kept_where_they_are_functions_of_the_latents():
    task = build("deterministic")
    draws = draws_of(task)
    values = task.constrain(draws)
    assert sorted(values) == ["log_tau", "tau", "w"]
    torch.testing.assert_close(values["tau"], draws[:, 0].exp())


def test_constrained_values_lie_in_the_support():
    values = build("dependent_support").constrain(3 * draws_of(build("dependent_support"), 50))
    assert bool(((values["a"] > 0) & (values["a"] < values["b"])).all())


def test_upper_bounds_are_each_rows_trials():
    task = build("binomial")
    rows = {name: column[[1, 1, 3]] for name, column in task.data.items()}
    torch.testing.assert_close(task.upper_bounds(rows)["y"], rows["trials"].double())
    assert build("bernoulli").upper_bounds(build("bernoulli").data) == {}


def test_prior_draws_follow_the_prior():
    task = build("lognormal")
    draws = task.constrain(task.prior_draws(400, seed=0))
    assert stats.kstest(draws["w"][:, 0].numpy(), stats.norm.cdf).pvalue > 1e-3
    assert stats.kstest(draws["sigma"].numpy(), stats.halfcauchy.cdf).pvalue > 1e-3
    assert torch.equal(task.prior_draws(3, seed=5), task.prior_draws(3, seed=5))


SIMULATED = {
    "bernoulli": lambda v: stats.bernoulli(1 / (1 + np.exp(-X.numpy() @ v["w"]))),
    "binomial": lambda v: stats.binom(COUNTS.numpy() + 1, 1 / (1 + np.exp(-X.numpy() @ v["w"]))),
    "poisson_offset": lambda v: stats.poisson(np.exp(X.numpy() @ v["w"] + 0.3)),
    "student_t": lambda v: stats.t(v["nu"], X.numpy() @ v["w"], 0.5),
    "lognormal": lambda v: stats.lognorm(v["sigma"], scale=np.exp(X.numpy() @ v["w"])),
    "beta": lambda v: stats.beta(v["a"], v["b"]),
    "ordered_logistic": None,
    "negative_binomial": None,
    "zero_inflated": None,
    "mixture": None,
    "dirichlet": None,
}


@pytest.mark.parametrize("name", SIMULATED)
def test_simulated_rows_follow_the_model_and_differ_between_draws(name):
    task, count = build(name), 400 if name == "ordered_logistic" else 1000
    values = {
        site: value.detach().expand(count, *value.shape[1:])
        for site, value in task.constrain(draws_of(task, 1)).items()
    }
    rows = {key: column for key, column in task.data.items() if key != "y"}
    state = torch.random.get_rng_state()
    y = task.simulate(rows, values, seed=1)["y"].double()
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(y, task.simulate(rows, values, seed=1)["y"].double())
    assert not torch.equal(y, task.simulate(rows, values, seed=2)["y"].double())
    assert y.shape == (count, N)
    assert bool((y.std(0) > 0).all())
    tame = y.atan()
    across = torch.corrcoef(torch.cat([tame[:-1], tame[1:]], 1).T)[:N, N:]
    assert float(across.abs().max()) < 5 / math.sqrt(count)
    if SIMULATED[name] is not None:
        exact = SIMULATED[name]({k: v[0].numpy() for k, v in values.items()})
        if np.all(np.isfinite(exact.std())):
            error = (y.numpy().mean(0) - exact.mean()) / (exact.std() / math.sqrt(count))
            assert np.abs(error).max() < 5


def test_simulation_of_many_draws_takes_no_run_of_the_model_a_draw():
    calls = []

    def model(x, y=None):
        calls.append(1)
        return bernoulli(x, y)

    task = Task(model, {"x": X, "y": LABELS})
    calls.clear()
    task.simulate({"x": X}, {"w": torch.zeros(4000, D, dtype=torch.float64)}, seed=0)
    assert len(calls) == 1


def test_log_likelihood_passes_through_torch_func_transforms():
    task = build("student_t")
    draws = draws_of(task)
    slopes = vmap(torch.func.grad(lambda draw: task.log_likelihood(task.data, draw[None]).sum()))(draws)
    leaf = draws.clone().requires_grad_(True)
    (expected,) = torch.autograd.grad(task.log_likelihood(task.data, leaf).sum(), leaf)
    torch.testing.assert_close(slopes, expected)


def test_name_and_hash_identify_the_model_in_every_process():
    def model(y, prior, scale):
        w = pyro.sample("w", prior(0.0, scale.sum()))
        with pyro.plate("data", len(y)):
            pyro.sample("y", dist.Normal(w, 1.0), obs=y)

    def task(scale):
        return Task(functools.partial(model, prior=dist.Normal, scale=scale), {"y": Y})

    long = torch.ones(2000, dtype=torch.float64)
    other = long.clone()
    other[1000] = 2.0  # torch prints both alike
    assert task(long).model_hash == task(long.clone()).model_hash != task(other).model_hash
    assert "0x" not in "".join(inspect.getsource(model)) and task(long).name.endswith("<locals>.model")
    assert build("pyro_module").name == f"{__name__}:Regression"


def test_other_rows_keep_model_plate_and_kinds():
    task = Task(bernoulli, {"x": X, "y": LABELS}, kinds={"x": kinds.fixed})
    other = task.with_data({"x": X[:3], "y": LABELS[:3]})
    assert other.size == 3 and other.column_kinds["x"] is kinds.fixed and other.model_hash == task.model_hash
