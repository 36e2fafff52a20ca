"""Function-space matching: closed forms for a student that is linear in its parameters, gradients, certificates."""

import dataclasses
import functools
import math
import warnings

import pyro
import pyro.distributions as dist
import pytest
import torch

import bayesdd
from bayesdd import kinds
from bayesdd.data.certificate import CertificateWarning
from bayesdd.data.predictive import PredictiveCertificate
from bayesdd.distillation.problem import Problem
from bayesdd.networks import function_space, row_search, students
from bayesdd.networks._function_space import _again, _labelled, solved, starting_rows
from bayesdd.networks.calibration import scored
from bayesdd.networks.purpose import Purpose, latents
from bayesdd.networks.regression import Regression

NOISE, TAU = 0.2, 1.5


def features(x):
    return torch.stack([torch.ones_like(x), x, torch.sin(2 * x)], -1)


def line(x, y=None, noise=NOISE, width=TAU):
    """A network whose only trained layer is the last: linear in its weights."""
    w = pyro.sample("w", dist.Normal(0.0, width).expand([3]).to_event(1))
    with pyro.plate("data", len(x)):
        return pyro.sample("y", dist.Normal(features(x) @ w, noise), obs=y)


def bent(x, y=None):
    w = pyro.sample("w", dist.Normal(0.0, 1.0).expand([7]).to_event(1))
    hidden = torch.tanh(x[:, None] * w[:3] + w[3:6])
    with pyro.plate("data", len(x)):
        return pyro.sample("y", dist.Normal(hidden.sum(1) * w[6], 0.3), obs=y)


@pytest.fixture(scope="module")
def data():
    generator = torch.Generator().manual_seed(0)
    x = 4 * torch.rand(40, generator=generator, dtype=torch.float64) - 2
    w = torch.tensor([0.5, -1.0, 0.8], dtype=torch.float64)
    return {"x": x, "y": features(x) @ w + NOISE * torch.randn(40, generator=generator, dtype=torch.float64)}


@pytest.fixture(scope="module")
def task(data):
    return bayesdd.Task(line, data, kinds={"x": kinds.interval(-2.0, 2.0)})


def exact(x, y, weight, at):
    """Posterior mean and sd of the regression function by the normal equations."""
    design = features(x)
    precision = design.T @ (weight[:, None] * design) / NOISE**2 + torch.eye(3, dtype=torch.float64) / TAU**2
    covariance = torch.linalg.inv(precision)
    mean = covariance @ design.T @ (weight * y) / NOISE**2
    here = features(at)
    return here @ mean, ((here @ covariance) * here).sum(1).sqrt(), mean, covariance


@pytest.mark.parametrize("rows", [2, 30])
def test_fits_of_a_linear_student_are_exact(task, data, rows):
    """Two rows of three weights are solved in their own dimensions, thirty in those of the weights."""
    regression = Regression(task, "the test")
    assert regression.noise == NOISE and regression.inputs == ["x"]
    some = {name: column[:rows] for name, column in data.items()}
    weight = torch.linspace(0.5, 3.0, rows, dtype=torch.float64)
    at = torch.linspace(-2, 2, 9, dtype=torch.float64)
    mean, sd, mode, _ = exact(some["x"], some["y"], weight, at)
    precision = weight / NOISE**2
    fits = students.climb(regression, some, precision, students.start(regression, 3, 0), 40)
    torch.testing.assert_close(fits.latents, mode.expand(3, -1), rtol=1e-6, atol=1e-6)
    assert float(fits.left.max()) < 1e-9
    found = students.spread(regression, fits.latents, some, precision, {"x": at})
    torch.testing.assert_close(found[0], mean.expand(3, -1), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(found[1], sd.expand(3, -1), rtol=1e-6, atol=1e-6)


def test_fits_of_a_network_descend_to_a_mode():
    x = torch.linspace(-2, 2, 6, dtype=torch.float64)
    task = bayesdd.Task(bent, {"x": x, "y": torch.sin(2 * x)})
    regression = Regression(task, "the test")
    precision = torch.linspace(5.0, 20.0, 6, dtype=torch.float64)
    fits = students.climb(regression, task.data, precision, students.start(regression, 4, 1), 400)
    theta = fits.latents.clone().requires_grad_(True)
    weight = precision * 0.3**2
    joint = task.log_prior(theta) + task.log_likelihood(task.data, theta) @ weight
    (slope,) = torch.autograd.grad(joint.sum(), theta)
    assert float(slope.abs().max()) < 1e-2
    assert bool((joint > task.log_prior(theta * 0) - 1e3).all())


def test_more_students_from_scratch_reach_the_mode_than_of_those_that_meet_sharp_rows_at_once():
    """Rows of sd 1e-3 at a network's own values; twelve students, equal numbers of steps."""
    x = torch.linspace(-2, 2, 9, dtype=torch.float64)
    task = bayesdd.Task(bent, {"x": x, "y": torch.tanh(1.5 * x - 0.4) - 0.7 * torch.tanh(0.8 * x + 1.0)})
    regression = Regression(task, "the test")
    precision = torch.full_like(x, 1e6)

    def joint(fits):
        return task.log_prior(fits.latents) + task.log_likelihood(task.data, fits.latents) @ (precision * 0.3**2)

    at_once = students.climb(regression, task.data, precision, students.start(regression, 12, 3), 80)
    by_and_by = students.from_scratch(regression, task.data, precision, 12, 3, 80)
    best = joint(by_and_by).max()
    arrived = [int((joint(fits) > best - 1).sum()) for fits in (at_once, by_and_by)]
    assert arrived[1] >= 11 and arrived[0] < arrived[1]


def test_rows_that_are_not_sharp_are_met_as_they_are():
    """Softened, they had no say beside the prior."""
    x = torch.linspace(-2, 2, 9, dtype=torch.float64)
    regression = Regression(bayesdd.Task(bent, {"x": x, "y": torch.tanh(1.5 * x)}), "the test")
    precision = torch.full_like(x, 50.0)
    fits = students.from_scratch(regression, regression.task.data, precision, 4, 0, 60)
    plain = students.climb(regression, regression.task.data, precision, students.start(regression, 4, 0), 60)
    torch.testing.assert_close(fits.latents, plain.latents, rtol=0, atol=0)


def test_students_from_scratch_of_a_linear_model_are_exact(task, data):
    """The continuation ends at the rows' own precisions."""
    regression = Regression(task, "the test")
    precision = torch.linspace(0.5, 300.0, 40, dtype=torch.float64) / NOISE**2
    mode = exact(data["x"], data["y"], precision * NOISE**2, data["x"])[2]
    fits = students.from_scratch(regression, data, precision, 3, 0, 80)
    torch.testing.assert_close(fits.latents, mode.expand(3, -1), rtol=1e-6, atol=1e-6)


def test_priors_that_are_not_normal_are_differentiated():
    def skewed(x, y=None):
        a = pyro.sample("a", dist.LogNormal(0.0, 0.5))
        b = pyro.sample("b", dist.StudentT(4.0, 0.0, 1.0))
        with pyro.plate("data", len(x)):
            return pyro.sample("y", dist.Normal(a * x + b, 0.3), obs=y)

    x = torch.linspace(-1, 1, 5, dtype=torch.float64)
    task = bayesdd.Task(skewed, {"x": x, "y": x})
    regression = Regression(task, "the test")
    draws = torch.tensor([[0.2, 0.5], [-0.4, -0.3]], dtype=torch.float64, requires_grad=True)
    value, slope, curvature = regression.prior(draws)
    expected = task.log_prior(draws)
    (first,) = torch.autograd.grad(expected.sum(), draws, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), draws)
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(slope, first)
    torch.testing.assert_close(curvature, -second)


def test_the_implicit_gradient_of_a_linear_student_is_exact(task, data):
    """Against central differences of the loss at refitted students."""
    regression = Regression(task, "the test")
    at = {"x": torch.linspace(-1.5, 1.5, 7, dtype=torch.float64)}
    goal = torch.cos(at["x"])
    start = torch.cat([data["x"][:4], data["y"][:4], torch.linspace(0.0, 1.0, 4, dtype=torch.float64)])

    def stored(vector):
        return {"x": vector[:4], "y": vector[4:8]}, vector[8:].exp() / NOISE**2

    def loss(vector):
        rows, precision = stored(vector)
        theta = students.climb(regression, rows, precision, students.start(regression, 1, 0), 60).latents
        return theta, 0.5 * ((regression.mean(theta, at) - goal) ** 2).sum()

    vector = start.clone().requires_grad_(True)
    theta = loss(vector.detach())[0].requires_grad_(True)
    (upward,) = torch.autograd.grad(0.5 * ((regression.mean(theta, at) - goal) ** 2).sum(), theta)
    found = row_search.implicit_gradient(regression, lambda: stored(vector), vector, theta, upward)
    step = 1e-5
    shifts = step * torch.eye(12, dtype=torch.float64)
    differences = [(loss(start + s)[1] - loss(start - s)[1]).detach() / (2 * step) for s in shifts]
    torch.testing.assert_close(found, torch.stack(differences), rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module")
def distilled(task, data):
    """Six rows for the predictions of forty, by the exact predictive."""
    inputs = {"x": torch.linspace(-1.9, 1.9, 60, dtype=torch.float64)}
    mean, sd, _, _ = exact(data["x"], data["y"], torch.ones(40, dtype=torch.float64), inputs["x"])
    objective = functools.partial(function_space, purpose=inputs, predictive=(mean, sd), steps=150)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CertificateWarning)
        found = bayesdd.distill(task, 6, objective=objective, seed=0, progress=False)
    return inputs, mean, sd, objective, found


@pytest.mark.long
def test_rows_predict_what_the_target_predicts(distilled):
    inputs, mean, sd, _, found = distilled
    own_mean, own_sd, _, _ = exact(found.data["x"], found.data["y"], found.weight, inputs["x"])
    error = ((own_mean - mean) / sd).square().mean().sqrt()
    assert float(error) < 0.1 and abs(float((own_sd / sd).log().mean())) < 0.2
    assert float(found.data["x"].abs().max()) <= 2.0
    # The certificate says just that: a linear student has one mode, and its spread is exact.
    assert found.certificate.mean_error == pytest.approx(float(error), rel=0.05, abs=1e-4)
    assert found.certificate.spread_ratio == pytest.approx(float((own_sd / sd).log().mean().exp()), rel=1e-3)
    assert found.certificate.ok


@pytest.mark.long
def test_a_certificate_of_predictions(task, distilled, tmp_path):
    _, _, _, objective, found = distilled
    certificate = found.certificate
    assert isinstance(certificate, PredictiveCertificate) and not hasattr(certificate, "kl_reverse")
    assert found.provenance["certifies"] == "predictions"
    assert "predictive sds" in str(certificate) and "nats" not in str(certificate)
    found.to_netcdf(tmp_path / "d.nc")
    again = bayesdd.Distilled.from_netcdf(tmp_path / "d.nc").certificate
    assert again == certificate and again.ok
    anew = bayesdd.certify(task, found, objective=objective, seed=7)
    assert anew.ok and anew.spread_ratio == pytest.approx(certificate.spread_ratio, rel=1e-3)
    assert not bayesdd.certify(task, found, objective=objective, tolerance=1e-6).ok
    before = dataclasses.replace(found, provenance={"objective": found.provenance["objective"]})
    for given in (found, before):
        with pytest.raises(ValueError, match=r"^certify: this set matches predictions.*objective=partial[^\n]*$"):
            bayesdd.certify(task, given)
    with pytest.raises(ValueError, match=r"^certify\(objective=\.\.\.\) is for [^\n]*$"):
        bayesdd.certify(task, found, objective=bayesdd.objectives.reverse_kl)


def test_draws_of_the_target_by_any_inference(task, data):
    """Draws in the model's units, with sites of the target alone beside them; and none: Gauss-Newton Laplace, exact."""
    at = {"x": torch.linspace(-1.0, 1.0, 5, dtype=torch.float64)}
    mean, sd, mode, covariance = exact(data["x"], data["y"], torch.ones(40, dtype=torch.float64), at["x"])
    noise = torch.randn(4000, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    draws = {"w": mode + noise @ torch.linalg.cholesky(covariance).T, "other": torch.zeros(4000)}
    assert latents(task, draws).shape == (4000, 3)
    for given in (draws, None):
        found = []
        quick = functools.partial(function_space, purpose=at, draws=given, steps=1)
        pool = quick(bayesdd.target.Target([task], task, "cpu", 0), 0, found.append).pool
        torch.testing.assert_close(pool.data["y"], mean, rtol=0, atol=5 * float(sd.max()) / math.sqrt(1000))


@pytest.mark.long
def test_a_target_of_several_tasks_with_a_scale_of_its_own(task, data):
    """The second task knows a slope, to an unknown precision: the target's predictive differs from the student's."""

    def slopes(x, y=None):
        w = pyro.sample("w", dist.Normal(0.0, TAU).expand([3]).to_event(1))
        sigma = pyro.sample("sigma", dist.LogNormal(-3.0, 0.3))
        with pyro.plate("data", len(x)):
            pyro.sample("y", dist.Normal(w[1] + 2 * w[2] * torch.cos(2 * x), sigma), obs=y)

    x = torch.linspace(-2, 2, 6, dtype=torch.float64)
    other = bayesdd.Task(slopes, {"x": x, "y": -1 + 2 * 0.8 * torch.cos(2 * x)})
    objective = functools.partial(function_space, purpose={"x": x}, steps=5)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CertificateWarning)
        found = bayesdd.distill([task, other], 4, objective=objective, student=task, progress=False)
    assert set(found.provenance["sites"]) == {"w"} and found.provenance["rows"] == 46
    assert isinstance(found.certificate, PredictiveCertificate) and found.certificate.mean_error >= 0
    pool = objective(bayesdd.target.Target([task, other], task, "cpu", 0), 0, str).pool
    true = features(x) @ torch.tensor([0.5, -1.0, 0.8], dtype=torch.float64)
    both, alone = (float((y - true).square().mean().sqrt()) for y in (pool.data["y"], _mean(data, x)))
    assert both < alone


def _mean(data, x):
    return exact(data["x"], data["y"], torch.ones(40, dtype=torch.float64), x)[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"purpose": {"z": [0.0]}}, r"needs the columns \['x'\] of the new rows, got \['z'\]"),
        ({"purpose": {"x": [0.0, 3.0]}}, r"'x' runs from 0 to 3, outside its declared domain .*interval\(-2.0, 2.0\)"),
        ({"purpose": {"x": [0.0, math.nan]}}, r"'x' is NaN in some rows"),
        ({"purpose": {"x": [0.0, math.inf]}}, r"infinite"),
        ({"draws": {"v": torch.zeros(9, 3)}}, r"lacks site 'w'"),
        ({"draws": {"w": torch.zeros(9, 4)}}, r"'w' has shape \(4,\) a draw, but \(3,\)"),
        ({"draws": {"w": torch.zeros(2, 3)}}, r"at least 8 draws"),
        ({"draws": {"w": torch.full((9, 3), math.nan)}}, r"not finite"),
        ({"predictive": (torch.zeros(3), torch.ones(3))}, r"at the 2 purpose rows"),
        ({"predictive": (torch.zeros(2), torch.zeros(2))}, r"positive sds"),
        ({"label": torch.cos}, r"label=...\) goes with predictive="),
        ({"predictive": (torch.zeros(2), torch.ones(2)), "label": lambda rows: torch.zeros(3)}, r"got \(3,\)"),
        ({"error": 5.0}, r"share of the outcome's range, below 1"),
        (
            {"predictive": (torch.zeros(2), torch.ones(2)), "held_out": {"x": [0.0], "y": [0.0]}},
            r"held_out=...\) goes with draws=",
        ),
        (
            {"draws": {"w": torch.zeros(9, 3)}, "held_out": {"x": [0.0]}},
            r"held_out=...\) needs the columns \['x', 'y'\]",
        ),
        ({"students": 0}, r"students, steps and restart of at least 1"),
    ],
)
def test_bad_input_is_one_line(task, change, message):
    settings = {"purpose": {"x": [0.0, 1.0]}, **change}
    with pytest.raises(ValueError, match=message) as error:
        bayesdd.distill(task, 2, objective=functools.partial(function_space, **settings), progress=False)
    assert "\n" not in str(error.value)


def test_students_that_are_no_regression_are_refused(data):
    def latent_noise(x, y=None):
        sigma = pyro.sample("sigma", dist.HalfNormal(1.0))
        with pyro.plate("data", len(x)):
            return pyro.sample("y", dist.Normal(x, sigma), obs=y)

    def counts(x, y=None):
        w = pyro.sample("w", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x)):
            return pyro.sample("y", dist.Poisson((w * x).exp()), obs=y)

    objective = functools.partial(function_space, purpose={"x": [0.0]})
    for model, y, message in ((latent_noise, data["y"], "known noise"), (counts, data["y"].abs().round(), "Poisson")):
        with pytest.raises(ValueError, match=message):
            bayesdd.distill(bayesdd.Task(model, {**data, "y": y}), 2, objective=objective, progress=False)


def test_rows_held_out_speak_against_the_target(task, data):
    """Those that the draws explain, and the same moved by five of their noise."""
    mode, covariance = exact(data["x"], data["y"], torch.ones(40, dtype=torch.float64), data["x"])[2:]
    noise = torch.randn(200, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    draws = {"w": mode + noise @ torch.linalg.cholesky(covariance).T}
    for moved, said in ((0.0, ""), (5 * NOISE, "its 90% intervals hold 0% of 40 rows held out")):
        held_out = {**data, "y": data["y"] + moved}
        objective = functools.partial(function_space, purpose={"x": [0.0, 1.0]}, draws=draws, held_out=held_out)
        solver = objective(bayesdd.target.Target([task], task, "cpu", 0), 0, str)
        assert solver.certificate.keywords["terms"].doubt == said


def test_a_tolerance_in_sds_and_an_error_in_own_terms_are_one_too_many(task):
    objective = functools.partial(function_space, purpose={"x": [0.0, 1.0]}, error=0.05, steps=1)
    with pytest.raises(bayesdd.Refusal, match=r"tolerance=2 is in predictive sds.*give one of them"):
        bayesdd.distill(task, 2, tolerance=2.0, objective=objective, progress=False)


def test_it_needs_a_size_and_a_purpose(task):
    with pytest.raises(ValueError, match="needs size="):
        bayesdd.distill(task, tolerance=0.1, objective=functools.partial(function_space, purpose={"x": [0.0]}))
    with pytest.raises(TypeError, match="lacks the setting 'purpose'"):
        bayesdd.distill(task, 2, objective=function_space)


@pytest.mark.long
def test_the_weights_scale_covers_the_error_of_a_student(task):
    """A target that is certain of what no student can say: intervals are as wide as the error, not as the target's."""
    at = torch.linspace(-2, 2, 80, dtype=torch.float64)
    truth, sd = torch.sign(at) * (at.abs() > 0.3), torch.full_like(at, 1e-3)
    objective = functools.partial(function_space, purpose={"x": at}, predictive=(truth, sd), steps=60)
    with pytest.warns(CertificateWarning, match="predictive means are off"):
        found = bayesdd.distill(task, 8, objective=objective, seed=0, progress=False)
    mean, spread, _, _ = exact(found.data["x"], found.data["y"], found.weight, at)
    covered = ((mean - truth).abs() < 1.645 * spread).double().mean()
    assert 0.8 <= float(covered) <= 0.97


@pytest.mark.long
def test_the_result_scores_no_worse_than_what_it_chose_from(task):
    """A linear student has one mode: its interval score is exact, but for the tenth that calibration may cost."""
    at = torch.linspace(-2, 2, 40, dtype=torch.float64)
    truth = torch.cos(3 * at)
    purpose = Purpose({"x": at}, truth, torch.full_like(at, 1e-3), label=lambda rows: torch.cos(3 * rows["x"]))
    regression = Regression(task, "the test")
    pool = purpose.labelled(regression)
    rows, weight = starting_rows(regression, purpose, pool.data, 0, 5)
    problem = Problem.from_rows(pool, rows, weight, torch.device("cpu"), equal_weights=False, move_rows=True)
    tie = functools.partial(_labelled, "y", purpose.label)
    settings = {"students": 2, "restart": 10, "say": str}

    def score(some, weight):
        mean, sd, _, _ = exact(some["x"], some["y"], weight, at)
        return float(scored((mean - truth)[None], sd[None], purpose.sd))

    vector = row_search.search(regression, problem, purpose, 0, steps=20, tie=tie, **settings)
    moved, scaled = problem.stored(vector)
    before = [score(rows, weight), score(tie(moved), scaled)]
    after = score(*problem.stored(solved(regression, purpose, problem, seed=0, steps=20, **settings)))
    assert after <= min(before) + 0.1


def test_purposes_keep_their_pieces_together():
    purpose = Purpose({"x": torch.arange(4.0)}, torch.arange(4.0), torch.ones(4), 50.0)
    some = purpose.some(torch.tensor([2, 0]))
    assert some.mean.tolist() == [2.0, 0.0] and some.inputs["x"].tolist() == [2.0, 0.0] and some.draws == 50.0


def test_rows_move_with_the_outcomes_of_the_target(task):
    """A line in place of a curve: freely, or with the curve's own values, rows end where students err least."""
    at = torch.linspace(-2, 2, 40, dtype=torch.float64)
    purpose = Purpose({"x": at}, torch.cos(at), torch.full_like(at, 0.01), label=lambda rows: torch.cos(rows["x"]))
    regression = Regression(task, "the test")
    pool = purpose.labelled(regression)
    rows, weight = starting_rows(regression, purpose, pool.data, 0, 4)
    problem = Problem.from_rows(pool, rows, weight, torch.device("cpu"), equal_weights=False, move_rows=True)
    tie = functools.partial(_labelled, "y", purpose.label)
    quiet = {"students": 2, "steps": 20, "restart": 10}
    vector = row_search.search(regression, problem, purpose, 0, str, tie=tie, **quiet)
    moved, scaled = problem.stored(vector)
    assert bool((moved["x"] != rows["x"]).any())
    torch.testing.assert_close(scaled / scaled.mean(), weight / weight.mean())
    again = _again(problem, tie(moved), scaled)
    back, same = problem.stored(again.start)
    torch.testing.assert_close(back, {"x": moved["x"], "y": torch.cos(moved["x"])})
    torch.testing.assert_close(same, scaled)


def test_one_row_is_met_as_it_is(task, data):
    """It has no spread that a softer one could be measured by."""
    regression, one = Regression(task, "the test"), {name: column[:1] for name, column in data.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fits = students.from_scratch(regression, one, torch.full((1,), 1e4, dtype=torch.float64), 2, 0, 40)
    assert float(fits.left.max()) < 1e-9
