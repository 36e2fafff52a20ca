"""Matching objectives: closed forms on a conjugate task, value and gradient, and what they refuse."""

import functools
import inspect
import math
import warnings
from dataclasses import replace

import pytest
import torch
from pyro.infer.autoguide import (
    AutoDelta,
    AutoDiagonalNormal,
    AutoGuideList,
    AutoLowRankMultivariateNormal,
    AutoMultivariateNormal,
    AutoNormal,
)

import bayesdd
from bayesdd.data.certificate import CertificateWarning
from bayesdd.distillation import stratified
from bayesdd.distillation.problem import Problem
from bayesdd.distillation.rounds import measured
from bayesdd.objectives import bilevel, draws_forward_kl, fisher, predictive_risk
from bayesdd.objectives.sorts import Matching, name_of, sort_of
from bayesdd.target.particles import Particles
from bayesdd.target.reference import build
from bayesdd.target.target import Target
from models import gaussian_mean, logistic_regression

DIM = 3
DATA = gaussian_mean.task(rows=60, dim=DIM).data
# A new matching objective adds its test; a setting without a default is named here.
SETTINGS = {"renyi": {"alpha": 0.5}, "predictive_risk": {"purpose": DATA}}
FUNCTIONS = [value for value in vars(bayesdd.objectives).values() if inspect.isfunction(value)]
CALLS = [functools.partial(value, **SETTINGS.get(value.__name__, {})) for value in FUNCTIONS]


@pytest.fixture(scope="module")
def conjugate():
    """Task, reference and four synthetic rows whose posterior is about half a sd off and too wide."""
    task = gaussian_mean.task(rows=60, dim=DIM)
    reference = build(Target([task], task, "cpu", 0), seed=0)
    offsets = [[1.0, 0.2, -1.0], [-1.0, 0.5, 0.3], [0.4, -1.0, 0.1], [-0.3, 0.4, 0.9]]
    rows = {"x": task.data["x"].mean(0) + torch.tensor(offsets, dtype=torch.float64)}
    weight = torch.tensor([10.0, 14.0, 11.0, 13.0], dtype=torch.float64)
    return task, reference, rows, weight


def with_gradient(loss, rows, weight):
    """Value, and gradient in rows and weights as one vector."""
    x = rows["x"].clone().requires_grad_(True)
    w = weight.clone().requires_grad_(True)
    value = loss({"x": x}, w)
    slopes = torch.autograd.grad(value, [x, w])
    return float(value.detach()), torch.cat([slope.flatten() for slope in slopes])


def agrees(found, expected, relative):
    assert found[0] == pytest.approx(expected[0], rel=relative)
    assert float((found[1] - expected[1]).norm()) < relative * float(expected[1].norm())


def on_policy(reference, task, rows, weight, count=20_000):
    """The reference with draws of the exact distilled posterior."""
    mean, covariance = gaussian_mean.exact(**rows, weight=weight)
    noise = torch.randn(count, DIM, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    draws = mean + noise * covariance[0, 0].sqrt()
    full = task.log_likelihood(task.data, draws).sum(1)
    even = torch.full_like(full, -math.log(count))
    return replace(reference, policy=Particles(draws, full, even, task.log_likelihood(rows, draws) @ weight))


def exact_kl(task, *, forward):
    full = gaussian_mean.exact(**task.data)

    def loss(rows, weight):
        few = gaussian_mean.exact(**rows, weight=weight)
        return gaussian_mean.kl(full, few) if forward else gaussian_mean.kl(few, full)

    return loss


@pytest.mark.parametrize("objective", [call for call in CALLS if sort_of(call) is Matching], ids=name_of)
def test_the_real_rows_are_better_than_shifted_ones(conjugate, objective):
    """By value and, back along the shift, by gradient; NaN nowhere."""
    task, reference, _, _ = conjugate
    loss, even = objective(reference), torch.ones(task.size, dtype=torch.float64)
    shifted, slopes = with_gradient(loss, {"x": task.data["x"] + 0.05}, even)
    assert shifted > with_gradient(loss, task.data, even)[0]
    assert float(slopes[: task.data["x"].numel()].sum()) > 0 and bool(slopes.isfinite().all())


def test_fisher_is_the_gaussian_closed_form(conjugate):
    task, reference, rows, weight = conjugate
    mean, covariance = gaussian_mean.exact(**task.data)
    scale = covariance[0, 0]

    def exact(rows, weight):
        # The log-ratio's gradient is a - b theta; theta ~ N(mean, scale I).
        a = task.data["x"].sum(0) - weight @ rows["x"]
        b = task.size - weight.sum()
        return 0.5 * scale * (((a - b * mean) ** 2).sum() + b**2 * scale * DIM)

    found = with_gradient(fisher(reference, draws=4000), rows, weight)
    agrees(found, with_gradient(exact, rows, weight), 0.05)


def test_draws_forward_kl_is_the_exact_kl(conjugate):
    task, reference, rows, weight = conjugate
    exact = with_gradient(exact_kl(task, forward=True), rows, weight)
    agrees(with_gradient(draws_forward_kl(reference), rows, weight), exact, 0.3)
    mean, covariance = gaussian_mean.exact(**task.data)
    noise = torch.randn(20_000, DIM, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    given = mean + noise * covariance[0, 0].sqrt()
    agrees(with_gradient(draws_forward_kl(reference, draws=given), rows, weight), exact, 0.1)
    # On policy the value is relative to the posterior that the draws are from; its slope is the KL's.
    policy = on_policy(reference, task, rows, weight)
    _, slope = with_gradient(draws_forward_kl(policy, draws=given), rows, weight)
    assert float((slope - exact[1]).norm()) < 0.05 * float(exact[1].norm())


def test_predictive_risk_is_the_gaussian_closed_form(conjugate, monkeypatch):
    task, reference, rows, weight = conjugate
    monkeypatch.setitem(predictive_risk.__globals__, "DRAWS", 20_000)
    purpose = {"x": task.data["x"][:7] + 0.4}
    mass = torch.linspace(0.5, 2.0, 7, dtype=torch.float64)

    def log_predictive(mean, covariance):
        variance = 1 + covariance[0, 0]
        square = ((purpose["x"] - mean) ** 2).sum(1)
        return mass @ (-0.5 * square / variance - 0.5 * DIM * (2 * math.pi * variance).log())

    def exact(rows, weight):
        few = gaussian_mean.exact(**rows, weight=weight)
        return log_predictive(*gaussian_mean.exact(**task.data)) - log_predictive(*few)

    policy = on_policy(reference, task, rows, weight)
    found = with_gradient(predictive_risk(policy, purpose=purpose, weight=mass), rows, weight)
    expected = with_gradient(exact, rows, weight)
    assert found[0] == pytest.approx(expected[0], abs=0.1)  # 4,000 draws of the full posterior
    assert float((found[1] - expected[1]).norm()) < 0.05 * float(expected[1].norm())


def test_bilevel_with_a_delta_guide_is_the_loss_at_the_mode(conjugate):
    task, reference, rows, weight = conjugate
    mean, _ = gaussian_mean.exact(**task.data)

    def exact(rows, weight):
        few, _ = gaussian_mean.exact(**rows, weight=weight)
        return 0.5 * (task.size + 1) * ((few - mean) ** 2).sum()

    agrees(with_gradient(bilevel(reference), rows, weight), with_gradient(exact, rows, weight), 1e-6)


@pytest.mark.parametrize("guide", [AutoNormal, AutoDiagonalNormal])
def test_bilevel_with_a_mean_field_guide_is_the_kl_of_independent_posteriors(conjugate, guide):
    """With one noise for both levels the sample average is exact: its moments cancel."""
    task, reference, rows, weight = conjugate
    found = with_gradient(bilevel(reference, guide=guide, draws=16), rows, weight)
    agrees(found, with_gradient(exact_kl(task, forward=False), rows, weight), 1e-5)


@pytest.mark.parametrize("guide", [AutoMultivariateNormal, functools.partial(AutoLowRankMultivariateNormal, rank=1)])
def test_bilevel_with_other_guides_is_near_the_kl(conjugate, guide):
    task, reference, rows, weight = conjugate
    found = with_gradient(bilevel(reference, guide=guide, draws=400), rows, weight)
    agrees(found, with_gradient(exact_kl(task, forward=False), rows, weight), 0.15)


@pytest.mark.parametrize("name", ["reverse_kl", "forward_kl", "renyi"])
def test_tilted_functionals_have_the_gradient_of_the_exact_divergence(conjugate, name):
    """At the posterior that the draws are from; value and gradient in rows and log weights."""
    task, reference, rows, weight = conjugate
    problem = Problem.from_rows(task, rows, weight, torch.device("cpu"), equal_weights=False, move_rows=True)
    alpha = 0.5
    objective = getattr(bayesdd.objectives, name)
    objective = functools.partial(objective, alpha=alpha) if name == "renyi" else objective

    def exact(v):
        stored, mass = problem.stored(v)
        full, few = gaussian_mean.exact(**task.data), gaussian_mean.exact(**stored, weight=mass)
        if name != "renyi":
            return gaussian_mean.kl(full, few) if name == "forward_kl" else gaussian_mean.kl(few, full)
        (m0, c0), (m1, c1) = full, few
        mixed = alpha * c1[0, 0] + (1 - alpha) * c0[0, 0]
        square = ((m0 - m1) ** 2).sum()
        logs = mixed.log() - (1 - alpha) * c0[0, 0].log() - alpha * c1[0, 0].log()
        return 0.5 * alpha * square / mixed - 0.5 * DIM * logs / (alpha - 1)

    values = []
    for function in (exact, lambda v: measured(objective, problem, v, reference.particles)):
        v = problem.start.clone().requires_grad_(True)
        value = function(v)
        values.append((float(value.detach()), torch.autograd.grad(value, v)[0]))
    agrees(values[1], values[0], 0.15)


@pytest.mark.parametrize("guide", [AutoDelta, AutoNormal])
def test_hypergradient_against_finite_differences(guide):
    """Logistic regression whose Hessian at the mode has condition number 200."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(400, 4, generator=generator, dtype=torch.float64) * torch.tensor([14.2, 4.0, 2.0, 1.0])
    w = torch.tensor([0.02, -0.3, 0.5, 0.2], dtype=torch.float64)
    y = torch.bernoulli(torch.sigmoid(x @ w), generator=generator)
    task = bayesdd.Task(logistic_regression.model, {"x": x, "y": y})
    reference = build(Target([task], task, "cpu", 0), seed=0)
    precision = torch.cholesky_inverse(reference.second_order.gaussian.factor)
    assert 150 < float(torch.linalg.cond(precision)) < 300
    picked, weight = stratified.choose(task.data, task.column_kinds, 8, generator)
    rows, weight = {name: column[picked] for name, column in task.data.items()}, weight * (task.size / weight.sum())
    problem = Problem.from_rows(task, rows, weight, torch.device("cpu"), equal_weights=False, move_rows=True)
    loss = bilevel(reference, guide=guide)
    v = problem.start.clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(loss(*problem.hard(v)), v)
    for _ in range(3):
        along = torch.randn(len(v), generator=generator, dtype=torch.float64)
        step = 1e-4 * along / along.norm()
        ends = [float(loss(*problem.hard(problem.start + sign * step)).detach()) for sign in (1, -1)]
        assert float(gradient @ step) == pytest.approx((ends[0] - ends[1]) / 2, rel=1e-4)


def test_an_inner_optimum_that_was_not_reached_is_said(conjugate, monkeypatch):
    _, reference, rows, weight = conjugate
    loss = bilevel(reference, guide=AutoNormal)
    monkeypatch.setattr("bayesdd.numerics.newton_cg.NEWTON_STEPS", 1)
    with pytest.warns(CertificateWarning, match="inner optimum was not reached"):
        loss({"x": rows["x"] + 5}, weight * 10)


@pytest.mark.parametrize(
    ("objective", "exact"),
    [
        (fisher, True),
        pytest.param(bilevel, False, marks=pytest.mark.long),
        pytest.param(functools.partial(bilevel, guide=AutoNormal), True, marks=pytest.mark.long),
    ],
)
def test_distill_takes_a_matching_objective(objective, exact):
    """One row holds the posterior of a Gaussian mean; a delta guide leaves its width free."""
    task = gaussian_mean.task(rows=60, dim=DIM)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CertificateWarning)
        distilled = bayesdd.distill(task, 1, seed=0, objective=objective, progress=False)
    full, few = gaussian_mean.exact(**task.data), gaussian_mean.exact(**distilled.data, weight=distilled.weight)
    assert float(((full[0] - few[0]) ** 2).sum()) < 1e-6
    assert (float(gaussian_mean.kl(few, full)) < 1e-5) is exact
    name = objective.func.__name__ if isinstance(objective, functools.partial) else objective.__name__
    assert distilled.provenance["objective"].startswith(name)


@pytest.mark.parametrize("name", ["reverse_kl", pytest.param("forward_kl", marks=pytest.mark.long), "renyi"])
def test_distill_takes_a_functional(name):
    objective = getattr(bayesdd.objectives, name)
    objective = functools.partial(objective, alpha=2.0) if name == "renyi" else objective
    task = logistic_regression.task(rows=300, dim=3)
    distilled = bayesdd.distill(task, 8, seed=0, objective=objective, progress=False)
    assert distilled.certificate.ok
    assert distilled.provenance["objective"].startswith(name)


@pytest.mark.parametrize(
    ("objective", "error", "words"),
    [
        (functools.partial(bayesdd.objectives.renyi, alpha=1.0), ValueError, "order alpha > 0 other than 1"),
        (bayesdd.objectives.renyi, TypeError, r"lacks the setting 'alpha'.*partial\(renyi"),
        (predictive_risk, TypeError, "lacks the setting 'purpose'"),
        (lambda a, b, c: a, TypeError, "needs a function .log_ratio, log_weight."),
        ("reverse_kl", TypeError, "needs a function .log_ratio, log_weight."),
        (
            functools.partial(predictive_risk, purpose={"z": torch.zeros(3, 2)}),
            ValueError,
            r"needs the columns \['x'\]",
        ),
        (
            functools.partial(predictive_risk, purpose={"x": torch.zeros(3, 2)}),
            ValueError,
            r"'x' has shape \(2,\) a row",
        ),
        (
            functools.partial(predictive_risk, purpose={"x": torch.zeros(3, 3)}, weight=torch.ones(2)),
            ValueError,
            "3 purpose rows but weights of shape",
        ),
        (functools.partial(bilevel, guide=AutoGuideList), ValueError, "guide AutoGuideList has no parameters"),
        (functools.partial(draws_forward_kl, draws=torch.zeros(50, 2)), ValueError, r"shape \(S, 3\) with S at least"),
    ],
)
def test_bad_settings_are_refused_in_one_line(objective, error, words):
    task = gaussian_mean.task(rows=60, dim=DIM)
    with pytest.raises(error, match=words) as caught:
        bayesdd.distill(task, 2, objective=objective, progress=False)
    assert "\n" not in str(caught.value)


def test_objectives_that_need_the_students_own_score_refuse_nuisances():
    task = gaussian_mean.task(rows=20, dim=2)

    class Nuisance:
        nuisance, student = torch.zeros(2), task

    class Reference:
        target = Nuisance

    for objective in (fisher, bilevel):
        with pytest.raises(ValueError, match="sites"):
            objective(Reference)
