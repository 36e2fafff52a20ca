"""Every broken model or argument is refused by one line that names what is wrong and what to do."""

import functools
import math
import warnings

import numpy as np
import pyro
import pyro.distributions as dist
import pyro.poutine as poutine
import pytest
import torch
from pyro.infer import config_enumerate  # noqa: F401  (imported by users' models; must not disturb)

from bayesdd import DataNote, Task
from bayesdd.distillation import _distill
from bayesdd.numerics.devices import resolve
from bayesdd.target import target
from bayesdd.task import kinds
from bayesdd.task.starts import finite_starts

N = 8
X = torch.randn(N, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
Y = X.sum(1) + 0.1
ROWS = {"x": X, "y": Y}
CONSTANT = torch.tensor([0.1, 0.2])
BROKEN = {}


def refused(*words, **columns):
    """A model that must be refused by a line with these words."""

    def keep(model):
        BROKEN[model.__name__] = (model, words, {**ROWS, **columns})
        return model

    return keep


def weights():
    return pyro.sample("w", dist.Normal(0.0, 1.0).expand([2]).to_event(1))


def observe(mean, y):
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Normal(mean, 1.0), obs=y)


@refused("'y'", "outside plate 'data'", "with pyro.plate")
def outside(x, y):
    pyro.sample("y", dist.Normal(x @ weights(), 1.0).to_event(1), obs=y)


@refused("'y'", "second row plate", "'more'")
def two_plates(x, y):
    mean = x @ weights()
    with pyro.plate("data", len(y)):
        pyro.sample("x0", dist.Normal(0.0, 1.0), obs=x[:, 0])
    with pyro.plate("more", len(y)):
        pyro.sample("y", dist.Normal(mean, 1.0), obs=y)


@refused("observes nothing in plate 'data'", "obs=")
def nothing_observed(x, y):
    weights()


@refused("no latent site")
def nothing_latent(x, y):
    observe(x[:, 0], y)


@refused("'z'", "inside the row plate", "Marginalise")
def latent_a_row(x, y):
    with pyro.plate("data", len(y)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("y", dist.Normal(z, 1.0), obs=y)


@refused("'k'", "discrete (Bernoulli)", "MixtureSameFamily")
def discrete(x, y):
    observe(pyro.sample("k", dist.Bernoulli(0.5)), y)


@refused("'y'", "one value per row", "(8, 1)", "(8,)", "[:, 0]", y=Y[:, None])
def column_against_vector(x, y):
    observe(x @ weights(), y)


@refused("'y'", "one value per row", "(8,)", "(8, 8)")
def vector_against_column(x, y):
    observe((x @ weights())[:, None], y)


@refused("site y", "8 vs 7", "mask them", y=torch.where(torch.arange(N) == 2, torch.nan, Y))
def row_selection(x, y):
    mean = x @ weights()
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Normal(mean[~y.isnan()], 1.0), obs=y[~y.isnan()])


@refused("plate 'data' has size 7", "8 rows", "selecting rows", y=torch.where(torch.arange(N) == 2, torch.nan, Y))
def plate_of_selected_rows(x, y):
    here = ~y.isnan()
    observe((x @ weights())[here], y[here])


@refused("subsample_size 3", "reads the rows in blocks")
def subsampling(x, y):
    mean = x @ weights()
    with pyro.plate("data", len(y), subsample_size=3) as picked:
        pyro.sample("y", dist.Normal(mean[picked], 1.0), obs=y[picked])


@refused("plate 'data' has size 8", "6 rows", "len(column)")
def plate_of_fixed_size(x, y):
    mean = x @ weights()
    with pyro.plate("data", N):
        pyro.sample("y", dist.Normal(mean, 1.0), obs=y)


@refused("row by row", "'y_0'")
def sequential_plate(x, y):
    w = weights()
    for i in pyro.plate("data", len(y)):
        pyro.sample(f"y_{i}", dist.Normal(x[i] @ w, 1.0), obs=y[i])


@refused("the prior of site 'w' depends on which rows", "functools.partial")
def prior_from_rows(x, y):
    w = pyro.sample("w", dist.Normal(y.mean(), 1.0))
    observe(w, y)


@refused("the prior of site 'pyro.factor' depends on which rows")
def factor_from_rows(x, y):
    w = pyro.sample("w", dist.Normal(0.0, 1.0))
    pyro.factor("likelihood", dist.Normal(w, 1.0).log_prob(y).sum())
    observe(w, y)


@refused("'z'", "shape (3,) on all rows", "g.max()", g=torch.arange(N) % 3)
def shape_from_rows(x, y, g):
    z = pyro.sample("z", dist.Normal(0.0, 1.0).expand([int(g.max()) + 1]).to_event(1))
    observe(z[g], y)


@refused("['extra']", "for some rows and not for others")
def site_from_rows(x, y):
    if len(y) > 1:
        pyro.sample("extra", dist.Normal(0.0, 1.0))
    observe(x @ weights(), y)


@refused("'z'", "some runs of the model", "torch.where")
def site_from_values(x, y):
    w = pyro.sample("w", dist.Normal(0.0, 1.0))
    z = pyro.sample("z", dist.Normal(0.0, 1.0)) if w.abs() < 1e-9 or w > -1e-9 else 0.0
    observe(w + z, y)


@refused("changes with the rows beside it", "x.mean(0)")
def batch_statistics(x, y):
    observe((x - x.mean(0)) @ weights(), y)


@refused("changes from run to run", "pyro.sample")
def dropout(x, y):
    observe(torch.nn.functional.dropout(x) @ weights(), y)


@refused("the prior of site 'w' is improper", "Normal(0, 100)")
def improper(x, y):
    w = pyro.sample("w", dist.ImproperUniform(dist.constraints.real, (), (2,)))
    observe(x @ w, y)


@refused("not finite at any of", "prior is proper")
def infinitely_wide(x, y):
    observe(pyro.sample("w", dist.Normal(0.0, torch.tensor(math.inf))), y)


@refused(
    "log-likelihood of row 3 is not finite",
    "check that row",
    x=torch.where(torch.arange(N)[:, None] == 3, -50.0, 1.0 + X**2),
)
def not_finite(x, y):
    w = pyro.sample("w", dist.HalfNormal(1.0))
    observe((w * x[:, 0]).log(), y)


@refused(
    "row 2 is NaN because column 'x' is missing there",
    "nan_to_num",
    x=torch.where(torch.arange(N)[:, None] == 2, torch.nan, X),
)
def nan_input(x, y):
    observe(x @ weights(), y)


@refused("'y'", "observes NaN in row 2", "nan_to_num", y=torch.where(torch.arange(N) == 2, torch.nan, Y))
def nan_observed(x, y):
    observe(x @ weights(), y)


@refused(
    "gradient for site 'w' is not finite", "nan_to_num", x=torch.where(torch.arange(N)[:, None] == 2, torch.nan, X)
)
def nan_under_a_mask(x, y):
    mean = x @ weights()
    with poutine.mask(mask=~x.isnan().any(1)):
        observe(mean, y)


@refused(
    "gradient for column 'x' is not finite in row 0",
    "kinds.fixed",
    x=torch.where(torch.arange(N)[:, None] == 0, 0.0, X**2),
)
def infinite_slope_of_a_column(x, y):
    observe(x.sqrt() @ weights(), y)


@refused("'y'", "observes 3 in row 5", "support", "Bernoulli", "recode", y=torch.where(torch.arange(N) == 5, 3, 1))
def labels(x, y):
    mean = x @ weights()
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Bernoulli(logits=mean), obs=y)


@refused("'y'", "observes 4 in row 0", "Categorical", y=torch.arange(N).flip(0) // 2 + 1)
def classes(x, y):
    p = pyro.sample("p", dist.Dirichlet(torch.ones(4)))
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Categorical(p), obs=y)


@refused("float32 constant 'CONSTANT'", ".double()")
def float32_constant(x, y):
    observe(x @ (weights()[:, None] * CONSTANT) @ CONSTANT, y)


@refused("site 'y' comes out as torch.float32", ".float()")
def float32_inside(x, y):
    w = pyro.sample("w", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(y)):
        pyro.factor("y", -((y - w) ** 2).float())


@refused("pyro.param 'w' has no prior", "pyro.sample")
def parameter(x, y):
    observe(x @ pyro.param("w", torch.zeros(2)), y)


@refused("'y'", "Delta", "noise")
def noiseless(x, y):
    mean = x @ weights()
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Delta(mean), obs=y)


@refused("two sites are called 'w'")
def twice_the_same_name(x, y):
    weights()
    observe(x @ weights(), y)


@refused("site 'y'", "depend on the latents", "bounds are known", y=Y.abs())
def bound_by_a_latent(x, y):
    mean = x @ weights()
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Uniform(torch.zeros(len(y)), 9.0 + mean.abs()), obs=y)


@refused("columns of integers that are multiplied, of ['x'], as floats", x=(X > 0).long())
def dummies(x, y):
    observe(x @ weights(), y)


@refused("'earlier' is observed outside", "pyro.factor('earlier'")
def earlier_estimate(x, y):
    w = weights()
    pyro.sample("earlier", dist.Normal(w[0], 0.2), obs=torch.tensor(0.5))
    observe(x @ w, y)


@refused("IndexError", "groups are integers from 0 on; 'g' runs from 1 to 2", g=torch.arange(N) % 2 + 1)
def groups_from_one(x, y, g):
    observe(weights()[g], y)


@refused("'y' is scaled by -1", "row 3", count=torch.where(torch.arange(N) == 3, -1.0, 2.0))
def negative_scale(x, y, count):
    mean = x @ weights()
    with pyro.plate("data", len(y)), poutine.scale(scale=count):
        pyro.sample("y", dist.Normal(mean, 1.0), obs=y)


@refused("IndexError", "'g' has missing entries", "floats", g=torch.where(torch.arange(N) == 3, math.nan, 0.0))
def missing_group(x, y, g):
    observe(weights()[g], y)


@refused("failed on its own columns", "KeyError", "absent")
def raises(x, y):
    weights()
    {}["absent"]


@refused("failed on its own columns", "RuntimeError")
def wrong_shapes(x, y):
    observe(x.T @ weights(), y)


@refused("ValueError: mine", "failed on its own columns")
def raises_lines(x, y):
    raise ValueError("mine\nand more")


def one_line(error, *words):
    text = str(error)
    assert "\n" not in text, text
    for word in words:
        assert word in text, text


@pytest.mark.parametrize("name", BROKEN)
def test_broken_models_are_refused_in_one_line(name):
    model, words, columns = BROKEN[name]
    state, dtype = torch.random.get_rng_state(), torch.get_default_dtype()
    with pytest.raises(ValueError) as caught:
        Task(model, columns)
    one_line(caught.value, f"{__name__}:{name}" if words[0] != "improper" else name, *words)
    assert torch.equal(torch.random.get_rng_state(), state) and torch.get_default_dtype() == dtype


def fine(x, y=None, *, scale=1.0):
    mean = x @ weights()
    with pyro.plate("data", len(x)):
        return pyro.sample("y", dist.Normal(mean, scale), obs=y)


ARGUMENTS = {
    "resembling column": (fine, {"x": X, "Y": Y, "z": Y}, ["'y'", "'Y'", "did you mean", "columns={'y': 'Y', ...}"]),
    "no column at all": (fine, {"z": Y}, ["['x']", "['z']", "columns="]),
    "unknown argument": (lambda x, y, g: None, ROWS, ["['g']", "functools.partial"]),
    "bound column": (functools.partial(fine, scale=2.0), {**ROWS, "scale": Y}, ["['scale']", "drop"]),
    "positional": (eval("lambda x, /, y: None"), {"x": X, "y": Y}, ["['x']", "positional"]),
    "row counts": (fine, {"x": X, "y": Y[:3]}, ["'x' has 8", "'y' has 3"]),
    "infinite": (fine, {"x": X, "y": torch.where(Y[1] == Y, math.inf, Y)}, ["'y'", "row 1", "NaN"]),
    "missing": (fine, {"x": X, "y": Y * math.nan}, ["'y'", "every value missing"]),
    "kind of no column": (fine, ROWS, ["'z'", "['x', 'y']"]),
}


@pytest.mark.parametrize("name", ARGUMENTS)
def test_columns_that_do_not_fit_the_model_are_refused_in_one_line(name):
    model, columns, words = ARGUMENTS[name]
    with pytest.raises(ValueError) as caught:
        Task(model, columns, kinds={"z": kinds.real} if name == "kind of no column" else {})
    one_line(caught.value, *words)


def test_what_is_no_model_or_no_number_is_refused():
    with pytest.raises(TypeError, match=r"needs a Pyro model .* got str"):
        Task("model", ROWS)
    with pytest.raises(TypeError, match="'y' holds values that are not real numbers, such as"):
        Task(fine, {"x": [[1.0, 2.0]], "y": np.array([{}])})


def test_columns_that_the_model_does_not_take_are_left_out_unread_and_named_once():
    odd = {"seen": np.array(["2020-01-01"] * N, dtype="datetime64[D]"), "note": [None] * N, "huge": Y * math.inf}
    with pytest.warns(DataNote, match=r"takes no columns \['seen', 'note', 'huge'\]") as caught:
        task = Task(fine, {**ROWS, **odd})
    assert len(caught) == 1 and caught[0].filename == __file__
    assert list(task.data) == ["x", "y"]
    chosen = Task(fine, {**ROWS, **odd}, columns=["x", "y"])
    assert all(torch.equal(chosen.data[name], task.data[name]) for name in ROWS)
    with pytest.raises(ValueError, match=r"takes the columns .* but columns= names \['huge'\]"):
        Task(fine, {**ROWS, **odd}, columns=["x", "y", "huge"])


def test_the_plate_that_holds_the_observed_sites_is_the_rows_whatever_its_name():
    def model(x, y):
        mean = x @ weights()
        with pyro.plate("people", len(y)):
            pyro.sample("y", dist.Normal(mean, 1.0), obs=y)

    task = Task(model, ROWS)
    assert task.plate == task.program.plate == "people" == task.with_data(ROWS).plate
    with pytest.raises(ValueError, match=r"inside `with pyro.plate\('data', .*or name your own plate with Task"):
        Task(model, ROWS, plate="data")


@pytest.mark.parametrize("steps", [N, N - 1])
def test_a_plate_of_steps_is_not_the_rows_however_many_there_are(steps):
    def model(z):
        mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
        with pyro.plate("time", steps, dim=-1), pyro.plate("patients", len(z), dim=-2):
            pyro.sample("z", dist.Normal(mean, 1.0), obs=z)

    assert Task(model, {"z": Y[:, None] + Y[:steps]}).plate == "patients"


def test_several_plates_as_long_as_the_rows_are_listed():
    def model(y, dim=-2):
        mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
        with pyro.plate("rows", len(y), dim=-1), pyro.plate("others", len(y), dim=-2):
            pyro.sample("y", dist.Normal(mean, 1.0).expand([len(y), len(y)]), obs=y.expand(len(y), len(y)))

    with pytest.raises(ValueError, match=r"\['rows', 'others'\].*Task\(\.\.\., plate=\.\.\.\)") as caught:
        Task(model, {"y": Y})
    one_line(caught.value, "model")


def test_a_float32_constant_that_mixes_silently_warns_by_name():
    with pytest.warns(UserWarning, match=r"float32 constant 'offset'.*double") as caught:
        Task(functools.partial(with_offset, offset=torch.tensor(0.1)), ROWS)
    one_line(caught[0].message, __name__)
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Task(functools.partial(with_offset, offset=torch.tensor(0.1).double()), ROWS)


def with_offset(x, y, offset):
    observe(x @ weights() + offset, y)


def test_a_missing_group_coded_as_minus_one_is_not_taken_for_the_last_in_silence():
    def model(g, y=None, first=0):
        effect = pyro.sample("effect", dist.Normal(0.0, 1.0).expand([4]).to_event(1))
        observe(effect[g + first], y)

    groups = torch.arange(N) % 3
    missing = torch.where(groups == 1, -1, groups)
    with pytest.warns(UserWarning, match=r"column 'g' is -1 in row 1 .* as group 3, the last") as caught:
        Task(model, {"g": missing, "y": Y})
    assert caught[0].filename == __file__
    for first, column in ((1, groups - 1), (0, groups)):
        Task(functools.partial(model, first=first), {"g": column, "y": Y})


def test_a_scale_around_the_whole_model_is_named():
    with pytest.warns(UserWarning, match=r"prior of 'w' too, which counts 0.5 times") as caught:
        task = Task(poutine.scale(fine, scale=0.5), ROWS)
    assert caught[0].filename == __file__
    draws = torch.zeros(1, 2, dtype=torch.float64)
    torch.testing.assert_close(task.log_prior(draws), Task(fine, ROWS).log_prior(draws) / 2)


def test_a_model_inside_pyros_handlers_keeps_its_name_and_a_hash_of_its_own():
    tasks = [Task(model, ROWS) for model in (fine, poutine.do(fine, {"z": 1.0}), poutine.do(fine, {"z": 2.0}))]
    assert {task.name for task in tasks} == {f"{__name__}:fine"} and len({task.model_hash for task in tasks}) == 3


def test_which_of_two_sorted_labels_is_the_success_is_said():
    def model(x, y=None):
        mean = x @ weights()
        with pyro.plate("data", len(x)):
            return pyro.sample("y", dist.Bernoulli(logits=mean), obs=y)

    rows = {"x": X, "y": ["case", "control"] * (N // 2)}
    with pytest.warns(DataNote, match=r"'control' counts as 1 and 'case' as 0.*labels={'y': \['control', 'case'\]}"):
        task = Task(model, rows)
    assert "y binary (case, control)" in str(task)
    turned = Task(model, rows, labels={"y": ["control", "case"]})
    assert torch.equal(turned.data["y"], 1 - task.data["y"])
    Task(model, {"x": X, "y": ["no", "yes"] * (N // 2)})


def test_networks_in_float32_are_named():
    network = torch.nn.Linear(2, 1)

    def model(x, y):
        observe(network(x)[:, 0] * pyro.sample("w", dist.Normal(0.0, 1.0)), y)

    with pytest.raises(ValueError, match="float32 constant 'network'"):
        Task(model, ROWS)


def test_starting_points_are_finite_and_as_many_as_asked():
    task = Task(fine, ROWS)
    draws = finite_starts(task.program, task.data, 3)
    assert draws.shape == (3, 2) and bool(task.log_likelihood(task.data, draws).isfinite().all())
    assert torch.equal(draws, finite_starts(task.program, task.data, 3))


def test_starting_points_are_finite_at_the_rows_that_are_asked_for():
    def bounded(y):
        scale = pyro.sample("scale", dist.LogNormal(0.0, 1.0))
        with pyro.plate("data", len(y)):
            pyro.factor("y", torch.where(y.abs() < scale, -scale.log(), -math.inf))

    task = Task(bounded, {"y": torch.full((4,), 0.5)})
    few = {"y": torch.full((2,), 2.0, dtype=torch.float64)}
    wide, narrow = finite_starts(task.program, few, 5), finite_starts(task.program, task.data, 5)
    assert bool((wide.exp() > 2).all()) and bool((narrow.exp() > 0.5).all()) and bool((narrow.exp() < 2).any())


def test_rows_are_looked_at_in_blocks(monkeypatch):
    monkeypatch.setattr("bayesdd.task.refusals.BLOCK", 3)
    monkeypatch.setattr("bayesdd.task.starts.BLOCK", 3)
    assert Task(fine, ROWS).size == N
    model, _, columns = BROKEN["labels"]
    with pytest.raises(ValueError, match="observes 3 in row 5"):
        Task(model, columns)
    model, _, columns = BROKEN["nan_input"]
    with pytest.raises(ValueError, match="row 2 is NaN"):
        Task(model, columns)


@pytest.mark.parametrize("size", [0, -1, N + 1, 2.0, True])
def test_sizes_below_one_and_above_the_rows_are_refused(size):
    task = Task(fine, ROWS)
    with pytest.raises(ValueError, match=r"size= must be a whole number from 1 to 8, got"):
        _distill.sizes([task], size, None)


def test_a_target_needs_tasks_and_a_student():
    task = Task(fine, ROWS)
    with pytest.raises(ValueError, match="empty list"):
        target.student_of([], None)
    with pytest.raises(ValueError, match="2 tasks needs student="):
        target.student_of([task, task], None)
    with pytest.raises(ValueError, match=r"size= .* or tolerance="):
        _distill.sizes([task], None, None)
    with pytest.raises(ValueError, match="positive number"):
        _distill.sizes([task], None, -1.0)
    assert target.student_of([task], None) is task


def test_devices_are_named():
    assert resolve("cpu") == torch.device("cpu")
    with pytest.raises(ValueError, match="'auto', 'cpu' or 'cuda', got 'gpu'"):
        resolve("gpu")
    if not torch.cuda.is_available():
        assert resolve("auto") == torch.device("cpu")
        with pytest.raises(ValueError, match="no CUDA device here: use device='auto' or 'cpu'"):
            resolve("cuda")
