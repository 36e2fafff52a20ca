"""The classic families of dataset distillation on tasks whose answers are known in closed form."""

import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from sklearn.kernel_ridge import KernelRidge
from sklearn.metrics.pairwise import rbf_kernel

from bayesdd import kinds
from bayesdd.baselines import (
    distribution_matching,
    gradient_matching,
    kernel_ridge,
    trajectory_matching,
    uniform,
    unrolling,
)
from bayesdd.baselines._gradient_matching import cosine, relative_norm, squared_norm
from bayesdd.baselines._kernel_ridge import arc_cosine, rbf_linear, ridge_prediction
from bayesdd.baselines._moving import movable, moved, whitening
from bayesdd.baselines._training import attained, scales, trained, unrolled
from bayesdd.baselines._trajectory_matching import mismatch
from bayesdd.density.density import Density
from bayesdd.task.task import Task
from models import categorical_regression, gaussian_mean, gaussian_mixture, linear_regression, logistic_regression

METHODS = [gradient_matching, trajectory_matching, distribution_matching, kernel_ridge, unrolling]
MEAN = gaussian_mean.task(rows=400, dim=3)
LINE = linear_regression.task(rows=400, dim=3)
LOGISTIC = logistic_regression.task(rows=400, dim=3)
CATEGORICAL = categorical_regression.task(rows=400, dim=3)
SOFT = Task(CATEGORICAL.model, CATEGORICAL.data, kinds={"y": kinds.soft(3)})


def reverse_kl(model, task, distilled):
    return float(model.kl(model.exact(**distilled.data, weight=distilled.weight), model.exact(**task.data)))


def line_kl(distilled):
    few = linear_regression.exact(**distilled.data, weight=distilled.weight)
    return float(gaussian_mean.kl(few, linear_regression.exact(**LINE.data)))


def ones(task):
    return torch.ones(task.size, dtype=torch.float64)


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# Starting rows and descent


def test_weights_are_n_over_m_where_rows_can_go_anywhere():
    for task in (MEAN, LINE, LOGISTIC, SOFT):
        problem, real, picked = movable(task, 8, 0)
        torch.testing.assert_close(problem.stored(problem.start)[1], torch.full((8,), task.size / 8).double())
        assert bool((real == 0).all()) and len(picked.unique()) == 8


@pytest.mark.parametrize(("task", "hold"), [(CATEGORICAL, False), (CATEGORICAL, True), (LOGISTIC, True), (SOFT, True)])
def test_held_labels_count_for_as_much_as_in_the_data(task, hold):
    problem, real, picked = movable(task, 9, 0, hold=hold)
    rows, weight = problem.stored(problem.start)
    labels = rows["y"].argmax(1) if rows["y"].dim() == 2 else rows["y"]
    assert torch.equal(labels, task.data["y"][picked])
    for label in task.data["y"].unique():
        assert math.isclose(float(weight[labels == label].sum()), int((task.data["y"] == label).sum()))
    assert torch.equal(real, task.data["y"].unique(return_inverse=True)[1])


def test_descent_finds_a_minimum_and_leaves_weights_alone_unless_told():
    problem, _, _ = movable(MEAN, 4, 0)
    goal = problem.start + 0.3
    for learn in (False, True):
        found = moved(
            "test", problem, lambda v: ((v - goal) ** 2).sum(), 0, iterations=300, rate=0.05, learn_weights=learn
        )
        rows, weight = problem.stored(goal)
        torch.testing.assert_close(found.data["x"], rows["x"], rtol=0, atol=1e-4 * float(MEAN.data["x"].std()))
        if learn:
            torch.testing.assert_close(found.weight.log(), weight.log(), rtol=0, atol=1e-4)
        else:
            assert torch.equal(found.weight, problem.stored(problem.start)[1])


def test_descent_says_so_when_nothing_is_finite():
    problem, _, _ = movable(MEAN, 4, 0)
    for value in (math.nan, math.inf, 1e200):
        with pytest.raises(ValueError, match="test: no gradient with respect to the rows"):
            moved("test", problem, lambda v, c=value: (c * v).sum(), 0, iterations=3, rate=0.1, learn_weights=False)


# Gradient matching


def test_distances():
    a, b = randn(5, 3), randn(5, 3, seed=1)
    for distance in (squared_norm, relative_norm, cosine):
        assert float(distance(a, b, MEAN)) > 0
        assert abs(float(distance(a, a, MEAN))) < 1e-5
    assert float(squared_norm(3 * a, 3 * b, MEAN)) == pytest.approx(9 * float(squared_norm(a, b, MEAN)))
    assert float(cosine(100 * a, 7 * b, MEAN)) == pytest.approx(float(cosine(a, b, MEAN)), rel=1e-5)
    # Near the mode the relative norm is the squared one over P, far away it is relative.
    assert float(relative_norm(a, 0 * b, MEAN)) == pytest.approx(float(squared_norm(a, 0 * b, MEAN)) / 3)
    assert float(relative_norm(1.1e6 * b, 1e6 * b, MEAN)) == pytest.approx(0.01, rel=1e-6)
    # One cosine a latent site: the second site's length does not hide in the first's.
    mixture = gaussian_mixture.task(rows=50)
    sites = mixture.structure.sites
    a, b = randn(1, mixture.dim), randn(1, mixture.dim, seed=1)
    expected = sum(1 - torch.cosine_similarity(a[:, s.start : s.stop], b[:, s.start : s.stop]) for s in sites)
    assert float(cosine(a, b, mixture)) == pytest.approx(float(expected), abs=1e-4)


def test_gradient_matching_solves_gaussian_tasks():
    found = gradient_matching(MEAN, 5, seed=0, iterations=300)
    assert reverse_kl(gaussian_mean, MEAN, found) < 1e-6 * reverse_kl(gaussian_mean, MEAN, uniform(MEAN, 5, seed=0))
    found = gradient_matching(LINE, 6, seed=0, iterations=300)
    assert line_kl(found) < 1e-3 * line_kl(uniform(LINE, 6, seed=0))


def test_gradient_matching_holds_labels_as_the_original_does():
    for settings in ({}, {"distance": cosine, "batch": 64}):
        found = gradient_matching(LOGISTIC, 8, seed=0, iterations=20, **settings)
        assert set(found.data["y"].tolist()) == {0.0, 1.0}
        assert math.isclose(float(found.weight @ found.data["y"]), float(LOGISTIC.data["y"].sum()))
    found = gradient_matching(LOGISTIC, 8, seed=0, iterations=20, by_label=False)
    assert bool(((found.data["y"] > 0) & (found.data["y"] < 1)).all())


# Unrolled training


def test_unrolled_training_has_the_closed_form_of_a_quadratic():
    rows, weight, start = {"x": randn(4, 3)}, randn(4).abs(), randn(2, 3, seed=1)
    steps = torch.linspace(0.01, 0.1, 7, dtype=torch.float64)[:, None].expand(7, 3)
    mode, covariance = gaussian_mean.exact(rows["x"], weight)
    shrink = torch.prod(1 - steps[:, 0] / covariance[0, 0])
    expected = mode + shrink * (start - mode)
    torch.testing.assert_close(unrolled(MEAN, rows, weight, start, steps).detach(), expected)


def test_hypergradient_against_finite_differences():
    problem, _, _ = movable(LOGISTIC, 5, 0)
    density = Density([(LOGISTIC, LOGISTIC.data, None)])
    start = randn(2, LOGISTIC.dim)
    used = len(problem.start)

    def outer(joined):
        steps = joined[used:].exp()[:, None].expand(-1, LOGISTIC.dim)
        return attained(density, unrolled(LOGISTIC, *problem.hard(joined[:used]), start, steps)).mean()

    point = torch.cat([problem.start, torch.full((4,), math.log(5e-3), dtype=torch.float64)]).requires_grad_(True)
    (gradient,) = torch.autograd.grad(outer(point), point)
    for i in range(len(point)):
        step = torch.zeros_like(point)
        step[i] = 1e-4
        numeric = (outer(point + step) - outer(point - step)).detach() / 2e-4
        torch.testing.assert_close(gradient[i], numeric, rtol=1e-5, atol=1e-5)


def test_scales_and_halving():
    density = Density([(MEAN, MEAN.data, None)])
    spread, step = scales(density, randn(3))
    torch.testing.assert_close(spread**2, torch.full((3,), 1 / (1 + MEAN.size), dtype=torch.float64))
    torch.testing.assert_close(step, spread**2)
    # On a quadratic a step of s / curvature gains 1 - s / 2 of what the slope promises: s = 12 is halved three times.
    path, factors = trained(density.log_joint_gradient, randn(2, 3), 12 * step, 5)
    assert path.shape == (6, 2, 3) and bool((factors == 1 / 8).all())
    _, factors = trained(density.log_joint_gradient, randn(2, 3), step, 20)
    assert bool((factors == 1).all())
    # Units of the coordinates do not matter: a covariate in thousandths.
    scaled = {"x": LINE.data["x"] * torch.tensor([1.0, 1e-3, 1.0], dtype=torch.float64), "y": LINE.data["y"]}
    small = Density([(LINE.with_data(scaled), scaled, None)])
    path, _ = trained(small.log_joint_gradient, randn(1, 3), scales(small, randn(3))[1], 200)
    mode, covariance = linear_regression.exact(**scaled)
    assert float(((path[-1, 0] - mode) ** 2 / covariance.diagonal()).max()) < 1e-6


def test_ascent_does_not_leap_to_an_infinite_noise():
    y = {"x": LINE.data["x"], "y": 80 + 20 * LINE.data["y"]}
    task = Task(linear_regression.model_unknown_noise, y)
    density = Density([(task, task.data, None)])
    start = torch.zeros(1, task.dim, dtype=torch.float64)
    path, _ = trained(density.log_joint_gradient, start, scales(density, start[0])[1], 100)
    height = density.log_joint(path[:, 0])
    assert bool((height.diff() > -1e-6).all()) and float(path.abs().max()) < 100


def test_unrolling_ends_at_the_full_mode():
    found = unrolling(MEAN, 5, seed=0, steps=8, iterations=200)
    assert reverse_kl(gaussian_mean, MEAN, found) < 1e-3 * reverse_kl(gaussian_mean, MEAN, uniform(MEAN, 5, seed=0))


# Trajectory matching


def test_the_real_rows_follow_the_experts():
    density = Density([(LINE, LINE.data, None)])
    spread, step = scales(density, torch.zeros(3, dtype=torch.float64))
    paths, factors = trained(density.log_joint_gradient, randn(4, 3), 3 * step, 12)
    sizes = factors[:, :, None] * 3 * step
    assert float(factors.min()) < 1  # steps differ: the student has to take the expert's own
    for at in (0, 3, 7):
        steps = sizes[at : at + 5]
        assert float(mismatch(LINE, LINE.data, ones(LINE), paths[at], paths[at + 5], steps, spread).detach()) < 1e-20
    half = {name: column[::2] for name, column in LINE.data.items()}
    steps = sizes[:5]
    off = mismatch(LINE, half, 2 * ones(LINE)[::2], paths[0], paths[5], steps, spread).detach()
    assert 1e-6 < float(off) < 1
    still = mismatch(LINE, half, ones(LINE)[::2], paths[0], paths[0], 0 * steps, spread).detach()
    assert float(still) == 0


def test_trajectory_matching_finds_the_mean():
    for settings in ({}, {"batch": 100, "rate": 0.02}):
        found = trajectory_matching(MEAN, 5, seed=0, length=20, ahead=8, steps=6, iterations=150, **settings)
        kl, of_uniform = (reverse_kl(gaussian_mean, MEAN, d) for d in (found, uniform(MEAN, 5, seed=0)))
        assert kl < (0.2 if settings else 1e-3) * of_uniform
    found = trajectory_matching(LINE, 6, seed=0, length=20, ahead=8, steps=8, iterations=200)
    assert line_kl(found) < 0.05 * line_kl(uniform(LINE, 6, seed=0))


def test_trajectory_matching_cannot_look_beyond_the_path():
    with pytest.raises(ValueError, match=r"20 steps ahead on paths of 10"):
        trajectory_matching(MEAN, 5, seed=0, length=10)


# Distribution matching


def test_linear_features_give_the_mean_of_every_label():
    found = distribution_matching(MEAN, 5, seed=0, depth=0, iterations=300)
    torch.testing.assert_close(found.weight @ found.data["x"], MEAN.data["x"].sum(0), rtol=1e-5, atol=1e-3)
    assert reverse_kl(gaussian_mean, MEAN, found) < 1e-6
    found = distribution_matching(LOGISTIC, 8, seed=0, depth=0, iterations=300)
    for label in (0.0, 1.0):
        ours, theirs = (d["y"] == label for d in (found.data, LOGISTIC.data))
        mean = (found.weight[ours] @ found.data["x"][ours]) / found.weight[ours].sum()
        torch.testing.assert_close(mean, LOGISTIC.data["x"][theirs].mean(0), rtol=1e-4, atol=1e-4)


def test_deeper_features_come_near_the_mean():
    plain = reverse_kl(gaussian_mean, MEAN, uniform(MEAN, 10, seed=0))
    for settings in ({}, {"depth": 2}, {"batch": 200}):
        found = distribution_matching(MEAN, 10, seed=0, iterations=300, **settings)
        assert reverse_kl(gaussian_mean, MEAN, found) < 0.05 * plain


def test_whitening():
    x = randn(500, 3) @ randn(3, 3, seed=1) + 5
    white = whitening({"x": x, "one": torch.ones(500).double()}, ["x", "one"])
    rows = white({"x": x, "one": torch.ones(500).double()})
    assert rows.shape == (500, 3)  # a constant is no direction
    torch.testing.assert_close(rows.mean(0), torch.zeros(3).double(), atol=1e-10, rtol=0)
    torch.testing.assert_close(rows.T @ rows / 500, torch.eye(3).double(), atol=1e-9, rtol=0)
    gappy = x.clone()
    gappy[:100, 0] = math.nan
    assert bool(whitening({"x": gappy}, ["x"])({"x": gappy}).isfinite().all())


# Kernel ridge


def test_prediction_is_kernel_ridge_regression():
    inputs, targets, new = randn(6, 3), randn(6, 2, seed=1), randn(9, 3, seed=2)
    found = ridge_prediction(rbf_linear, inputs, targets, new, 1e-2).numpy()
    a, b = inputs.numpy(), new.numpy()

    def kernel(p, q):
        return rbf_kernel(p, q, gamma=1 / 6) + (1 + p @ q.T) / 4

    gram = kernel(a, a)
    noise = 1e-2 * np.diag(gram).mean()
    by_hand = kernel(b, a) @ np.linalg.solve(gram + noise * np.eye(6), targets.numpy())
    np.testing.assert_allclose(found, by_hand, rtol=1e-8, atol=1e-10)
    fitted = KernelRidge(alpha=noise, kernel="precomputed").fit(gram, targets.numpy())
    np.testing.assert_allclose(found, fitted.predict(kernel(b, a)), rtol=1e-8, atol=1e-10)


def test_arc_cosine_is_the_kernel_of_random_relus():
    a, b = randn(3, 4), randn(2, 4, seed=1)
    weights = randn(5, 200_000, seed=2) * math.sqrt(2 / 5)
    features = [torch.relu(torch.cat([x, torch.ones(len(x), 1).double()], 1) @ weights) for x in (a, b)]
    products = features[0][:, None] * features[1][None]
    error = products.std(2) / math.sqrt(200_000)
    assert bool(((products.mean(2) - arc_cosine(a, b)).abs() < 4 * error).all())
    leaf = a.clone().requires_grad_(True)
    (slope,) = torch.autograd.grad(arc_cosine(leaf, leaf).sum(), leaf)
    step = torch.zeros_like(a)
    step[1, 2] = 1e-5
    numeric = (arc_cosine(a + step, a + step).sum() - arc_cosine(a - step, a - step).sum()) / 2e-5
    assert float(slope[1, 2]) == pytest.approx(float(numeric), rel=1e-6)


def test_a_linear_kernel_reaches_least_squares():
    def linear(a, b):
        return 1 + a @ b.T

    found = kernel_ridge(LINE, 6, seed=0, kernel=linear, iterations=300, batch=None)
    x, y = LINE.data["x"][:, 1:], LINE.data["y"]
    at = found.data["x"][:, 1:]
    predicted = ridge_prediction(linear, at, found.data["y"][:, None], x, 1e-6)[:, 0]
    best = LINE.data["x"] @ torch.linalg.lstsq(LINE.data["x"], y[:, None]).solution[:, 0]
    assert float(((predicted - best) ** 2).mean()) < 1e-4 * float(((y - best) ** 2).mean())


def test_kernel_ridge_takes_labels_as_outcomes():
    for task in (LOGISTIC, CATEGORICAL, SOFT):
        for hold in (False, True):
            found = kernel_ridge(task, 8, seed=0, iterations=10, kernel=arc_cosine, hold_labels=hold)
            assert len(found) == 8 and math.isclose(float(found.weight.sum()), task.size)


@pytest.mark.parametrize("task", [MEAN, gaussian_mixture.task(rows=50)])
def test_kernel_ridge_needs_an_outcome_and_covariates(task):
    with pytest.raises(ValueError, match=r"kernel_ridge needs one observed column .* take a method") as refused:
        kernel_ridge(task, 5, seed=0)
    assert "\n" not in str(refused.value)


# All of them


@pytest.mark.parametrize("method", METHODS)
def test_sizes_that_are_none(method):
    for size in (0, LINE.size + 1):
        with pytest.raises(ValueError, match="a baseline needs a size between 1 and"):
            method(LINE, size, seed=0)


@pytest.mark.parametrize("method", METHODS)
def test_soft_labels(method):
    found = method(SOFT, 8, seed=0, iterations=5)
    assert found.data["y"].shape == (8, 3) and found.soft == {"y": 3}


@pytest.mark.parametrize("method", [m for m in METHODS if m is not kernel_ridge])
def test_weights_move_when_told(method):
    kept, learned = (method(MEAN, 5, seed=0, iterations=5, learn_weights=learn) for learn in (False, True))
    torch.testing.assert_close(kept.weight, torch.full((5,), MEAN.size / 5).double())
    assert bool((learned.weight != kept.weight).all())


def gappy(x):
    mean = pyro.sample("mean", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
    with pyro.plate("data", len(x)):
        with pyro.poutine.mask(mask=~torch.isnan(x[:, 0])):
            pyro.sample("first", dist.Normal(mean[0], 1.0), obs=x[:, 0].nan_to_num())
        pyro.sample("second", dist.Normal(mean[1], 1.0), obs=x[:, 1])


@pytest.mark.parametrize("method", [m for m in METHODS if m is not kernel_ridge])
def test_patterns_of_missing_entries_stay(method):
    x = randn(80, 2)
    x[:20, 0] = math.nan
    found = method(Task(gappy, {"x": x}), 8, seed=0, iterations=5)
    missing = found.data["x"].isnan()
    assert math.isclose(float(found.weight[missing[:, 0]].sum()), 20) and not bool(missing[:, 1].any())
