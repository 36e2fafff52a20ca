"""States with linear-Gaussian parents: against normal integrals of SciPy, and sums over what is missing."""

import itertools

import numpy as np
import pytest
import torch
from scipy import stats

from bayesdd import dbn
from bayesdd.dbn import Template
from bayesdd.dbn.likelihood import unconstrain

HAZARD = Template(
    ("a", "end"),
    inter=(("a", "a"), ("a", "end")),
    states={"end": ("alive", "dead")},
    terminal="end",
)
STAGE = Template(
    ("a", "stage"),
    static=("sex",),
    intra=(("a", "stage"), ("sex", "stage")),
    inter=(("a", "a"), ("stage", "stage"), ("stage", "a")),
    states={"stage": 3, "sex": 2},
)
VALUES = {"a_initial": [0.2], "a_initial_variance": 1.3, "a": [0.1, 0.7], "a_variance": 0.5, "end_initial": [[-1.5]]}
VALUES = {site: torch.tensor(value).double()[None] for site, value in VALUES.items()}
VALUES["end"] = torch.tensor([[[-0.8, 0.6]]]).double()


def parameters(template, seed=0):
    generator = torch.Generator().manual_seed(seed)
    found = {}
    for site, shape in template.sites.items():
        value = torch.randn(1, *shape, generator=generator, dtype=torch.float64)
        table = site == "sex"
        found[site] = value.softmax(-1) if table else 0.6 * value if shape else 0.4 + value.abs()
    return found


def joint():
    """Mean and covariance of a_0..a_3 and of the utilities of end at slices 0 to 3."""
    root, shift = np.eye(8), np.zeros(8)
    scale = np.sqrt([1.3, 0.5, 0.5, 0.5, 1, 1, 1, 1])
    slopes = np.zeros((8, 8))
    shift[:4], shift[4:] = [0.2, 0.1, 0.1, 0.1], [-1.5, -0.8, -0.8, -0.8]
    for t in range(1, 4):
        slopes[t, t - 1], slopes[4 + t, t - 1] = 0.7, 0.6
    root = np.linalg.inv(np.eye(8) - slopes)
    return root @ shift, root @ np.diag(scale**2) @ root.T


@pytest.mark.parametrize("seen", [[], [0], [2], [0, 1], [0, 1, 2, 3]])
def test_hazard_with_missing_parents_is_a_normal_integral(seen):
    x = torch.tensor([[[0.5, 0], [-0.4, 0], [1.2, 0], [0.3, 1]]]).double()
    for t in set(range(4)) - set(seen):
        x[0, t, 0] = torch.nan
    mean, cov = joint()
    gain = cov[:, seen] @ np.linalg.inv(cov[np.ix_(seen, seen)]) if seen else np.zeros((8, 0))
    given = x[0, seen, 0].numpy()
    below, spread = (mean + gain @ (given - mean[seen]))[4:], (cov - gain @ cov[seen])[4:, 4:]
    turn = np.diag([1.0, 1, 1, -1])  # alive thrice, then dead
    rule = stats.multivariate_normal(turn @ below, turn @ spread @ turn, maxpts=200_000, abseps=1e-8, seed=0)
    exact = np.log(rule.cdf(np.zeros(4)))
    if seen:
        exact += stats.multivariate_normal(mean[seen], cov[np.ix_(seen, seen)]).logpdf(given)
    found = float(dbn.log_likelihood(HAZARD, VALUES, {"x": x})[0, 0])
    assert abs(found - exact) < (1e-6 if seen in ([0, 1], [0, 1, 2, 3]) else 5e-3)


def test_states_are_steps_and_their_probabilities_sum_to_one():
    values, a = parameters(STAGE), 0.7
    rows = {"x": torch.tensor([[[a, k]] for k in range(3)]).double(), "static": torch.ones(3, 1)}
    steps = stats.norm.cdf(values["stage_initial"][0].numpy() @ [1, a, 1])
    exact = np.log([1 - steps[0], steps[0] * (1 - steps[1]), steps[0] * steps[1]])
    number = stats.norm(values["a_initial"][0, 0], values["a_initial_variance"][0].sqrt()).logpdf(a)
    found = dbn.log_likelihood(STAGE, values, rows)[0].numpy() - number - float(values["sex"][0, 1].log())
    np.testing.assert_allclose(found, exact, atol=1e-12)


def test_what_is_missing_is_summed_over_in_tasks_too():
    """The sum over all states of rows is the row without them; missing numbers are orthants."""
    values = parameters(STAGE)
    numbers = torch.tensor([0.7, -0.2, 0.4]).double()
    every = torch.tensor(list(itertools.product(range(3), repeat=2))).double()
    x = torch.stack([numbers.expand(9, 3), torch.cat([every, torch.full((9, 1), 2.0)], 1)], 2)
    static = torch.ones(9, 1).double()
    whole = dbn.log_likelihood(STAGE, values, {"x": x, "static": static})[0].logsumexp(0)
    x[:, :2, 1] = torch.nan
    x[1:, 1:] = torch.nan
    rows = {"x": x[:2], "static": static[:2]}
    found = dbn.log_likelihood(STAGE, values, rows)[0]
    assert abs(float(found[0] - whole)) < 1e-10
    task = dbn.task(STAGE, rows)
    free = unconstrain(STAGE, values)
    torch.testing.assert_close(task.log_likelihood(task.data, free)[0], found)
    torch.testing.assert_close(task.constrain(free), values)


def test_a_course_ends_once():
    x = dbn.simulate(HAZARD, {site: value[0] for site, value in VALUES.items()}, 4000, 4, seed=0)["x"]
    dead, later = x[:, :-1, 1] == 1, x[:, 1:].isnan().all(2)
    assert bool((later | ~dead)[dead].all()) and bool((x[:, 0, 1] >= 0).all())
    share, exact = float((x[:, 0, 1] == 1).double().mean()), float(stats.norm.cdf(-1.5))
    assert abs(share - exact) < 4 * np.sqrt(exact * (1 - exact) / 4000)
    again = x.clone()
    again[:, 1:, 1] = torch.where(dead & (again[:, 1:, 1].isnan()), 1.0, again[:, 1:, 1])  # recorded a second time
    torch.testing.assert_close(
        dbn.log_likelihood(HAZARD, VALUES, {"x": again[:50]}), dbn.log_likelihood(HAZARD, VALUES, {"x": x[:50]})
    )
    unsaid = x.clone()
    unsaid[:, 0, 1] = torch.where(x[:, 1].isnan().all(1), x[:, 0, 1], torch.nan)  # what is seen later says alive
    torch.testing.assert_close(
        dbn.log_likelihood(HAZARD, VALUES, {"x": unsaid[:50]}), dbn.log_likelihood(HAZARD, VALUES, {"x": x[:50]})
    )
    x[0] = torch.tensor([[0.1, 0], [0.2, 1], [0.3, torch.nan], [0.1, 0]])
    with pytest.raises(ValueError, match="row 0 has 'a' at slice 2, after its end"):
        dbn.log_likelihood(HAZARD, VALUES, {"x": x})
