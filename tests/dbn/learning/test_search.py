"""Structure search against enumeration of all networks; scores against formulas of other shapes."""

import functools
import itertools
import math

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.special import gammaln

from bayesdd.dbn.learning.scores import Sample, bdeu, bge, bic
from bayesdd.dbn.learning.search import learn, recovered, total
from bayesdd.dbn.likelihood import simulate
from bayesdd.dbn.template.template import Template

NAMES = ("a", "b", "c")
STATES = {"a": 2, "b": 3, "c": 2}


def subsets(items):
    return [c for size in range(len(items) + 1) for c in itertools.combinations(items, size)]


def acyclic(edges):
    return any(all(order.index(u) < order.index(v) for u, v in edges) for order in itertools.permutations(NAMES))


DAGS = [edges for edges in subsets(list(itertools.permutations(NAMES, 2))) if acyclic(edges)]


def sequences(states, count=25, slices=3, seed=0):
    rng = np.random.default_rng(seed)
    if states:
        x = np.stack([rng.integers(0, k, (count, slices)) for k in states.values()], 2)
        x[:, 1:, 1] = np.where(rng.random((count, slices - 1)) < 0.6, x[:, :-1, 0], x[:, 1:, 1])
    else:
        x = rng.normal(size=(count, slices, 3))
        x[:, 1:, 1] += 0.7 * x[:, :-1, 0]
        x[:, :, 2] += 0.6 * x[:, :, 1]
    return torch.as_tensor(x), torch.as_tensor(rng.uniform(0.5, 3.0, count))


def gaussian_bic(y, parents, weight):
    """By least squares on rows scaled by the roots of their weights."""
    root, total = np.sqrt(weight), weight.sum()
    design = np.column_stack([np.ones(len(y)), *parents]) * root[:, None]
    left = ((y * root - design @ np.linalg.lstsq(design, y * root)[0]) ** 2).sum() / total
    return -total / 2 * (np.log(2 * np.pi * left) + 1) - (2 + len(parents)) / 2 * np.log(total)


def table_bdeu(y, parents, weight, own, others):
    """By a loop over the states of the parents."""
    score = 0.0
    for state in itertools.product(*(range(k) for k in others)):
        here = np.all([p == s for p, s in zip(parents, state, strict=True)], axis=0) * weight
        counts = np.array([(here * (y == k)).sum() for k in range(own)])
        prior = 1.0 / math.prod(others)
        score += gammaln(prior) - gammaln(prior + counts.sum())
        score += (gammaln(prior / own + counts) - gammaln(prior / own)).sum()
    return score


@pytest.mark.parametrize("score", [bic, bdeu])
def test_the_network_is_the_best_of_all_on_three_variables(score):
    states = STATES if score is bdeu else {}
    x, weight = sequences(states)
    rows = {name: x[:, :, i].numpy() for i, name in enumerate(NAMES)}

    def family(v, inner, outer, start):
        now = slice(0, 1) if start else slice(1, None)
        parents = [rows[p][:, now].ravel() for p in inner] + [rows[p][:, :-1].ravel() for p in outer]
        y, w = rows[v][:, now].ravel(), np.repeat(weight.numpy(), rows[v][:, now].shape[1])
        if score is bic:
            return gaussian_bic(y, parents, w)
        return table_bdeu(y, parents, w, states[v], [states[p] for p in (*inner, *outer)])

    @functools.cache
    def both(v, inner, outer):
        return family(v, inner, (), True) + family(v, inner, outer, False)

    found = []
    for dag in DAGS:
        inner = {v: tuple(u for u in NAMES if (u, v) in dag) for v in NAMES}
        for outer in itertools.product(subsets(NAMES), repeat=3):
            found.append((sum(both(v, inner[v], o) for v, o in zip(NAMES, outer, strict=True)), dag, outer))
    best, _, outer = max(found, key=lambda one: one[0])
    template = learn(Template(NAMES, states=states), {"x": x}, weight, score=score, max_parents=5)
    assert total(template, {"x": x}, weight, score=score) == pytest.approx(best, abs=1e-6)
    # Networks that differ in the direction of an edge within the slice may score alike.
    assert set(template.inter) == {(u, v) for v, parents in zip(NAMES, outer, strict=True) for u in parents}
    assert template.inter


def test_static_variables_are_parents_of_every_slice():
    x, weight = sequences({})
    static = x[:, :1, 0] + 0.5 * x[:, 1:2, 2]
    frame = Template(("a", "b"), static=("s",))
    data = {"x": x[:, :, :2], "static": static}
    scores = {}
    for intra in [(), (("a", "b"),), (("b", "a"),)]:
        for fixed in subsets([("s", "a"), ("s", "b")]):
            for inter in subsets(list(itertools.product("ab", repeat=2))):
                template = Template(("a", "b"), intra=(*intra, *fixed), inter=inter, static=("s",))
                scores[intra, fixed, inter] = total(template, data, weight)
    found = learn(frame, data, weight)
    assert total(found, data, weight) == pytest.approx(max(scores.values()), abs=1e-9)
    assert ("s", "a") in found.intra


def test_edges_of_the_first_slice_stay_and_lend_the_others_their_order():
    x, weight = sequences({})
    frame, scores = Template(("b", "c"), initial=(("c", "b"),)), []
    for intra in [(), (("c", "b"),)]:
        for inter in subsets(list(itertools.product("bc", repeat=2))):
            scores.append(total(Template(("b", "c"), intra, inter, initial=frame.initial), {"x": x[..., 1:]}, weight))
    found = learn(frame, {"x": x[..., 1:]}, weight)
    assert found.initial == frame.initial
    assert total(found, {"x": x[..., 1:]}, weight) == pytest.approx(max(scores), abs=1e-9)
    # Without edges in the first slice the same rows may take either direction.
    free = learn(Template(("b", "c"), initial=()), {"x": x[..., 1:]}, weight)
    assert free.structure.initial[0].parents == ()
    assert set(free.intra) & {("b", "c"), ("c", "b")}


def test_static_variables_form_a_network_of_their_own():
    x, weight = sequences({}, slices=2)
    static = torch.stack([x[:, 0, 1], x[:, 0, 1] + 0.3 * x[:, 0, 0]], 1)
    found = learn(Template(("a",), static=("s", "t")), {"x": x[:, :, :1], "static": static}, weight)
    assert {("s", "t"), ("t", "s")} & set(found.intra)


def test_sequences_of_one_slice_have_no_edges_over_time():
    x, weight = sequences({})
    found = learn(Template(NAMES), {"x": x[:, :1]}, weight)
    assert found.inter == ()
    assert {("b", "c"), ("c", "b")} & set(found.intra)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_bge_is_the_product_of_student_predictions(size):
    x, _ = sequences({}, slices=1)
    values, count = x[:, 0], len(x) - 1
    chosen = torch.tensor([list(range(size))])

    def marginal(rows):
        return float(bge(Sample(rows, torch.ones(len(rows), dtype=torch.float64), ()), chosen))

    seen = values[:-1, :size].numpy()
    mean = seen.mean(0)
    scatter = 0.5 * np.eye(size) + (seen - mean).T @ (seen - mean) + count / (count + 1) * np.outer(mean, mean)
    freedom = 3 + count
    spread = scatter * (count + 2) / ((count + 1) * freedom)
    predicted = stats.multivariate_t(seen.sum(0) / (count + 1), spread, df=freedom)
    assert marginal(values) - marginal(values[:-1]) == pytest.approx(predicted.logpdf(values[-1, :size].numpy()))


@pytest.mark.parametrize("score", [bic, bge, bdeu])
def test_a_row_of_weight_two_is_two_rows(score):
    states = tuple(STATES.values()) if score is bdeu else ()
    x, _ = sequences(STATES if states else {})
    ones = torch.ones(len(x), dtype=torch.float64)
    sets = torch.tensor([[0, 1], [1, 2]])
    once = score(Sample(x[:, 0], 1 + ones, states), sets)
    twice = score(Sample(x[:, 0].repeat(2, 1), ones.repeat(2), states), sets)
    torch.testing.assert_close(once, twice)


def test_many_sequences_give_the_true_edges():
    true = Template(NAMES, intra=(("a", "b"),), inter=(("a", "a"), ("b", "b"), ("c", "c"), ("a", "c"), ("c", "b")))
    values = {}
    for site, shape in true.sites.items():
        values[site] = torch.full(shape, 0.5) if shape else torch.tensor(0.5)
    data = simulate(true, values, 2000, 4, seed=0)
    found = learn(Template(NAMES), data)
    assert recovered(found, true) == (1.0, 1.0)
    assert recovered(Template(NAMES, inter=(("a", "a"), ("a", "b"))), true) == (0.5, 1 / 6)
    assert math.isnan(recovered(Template(NAMES), true).precision)


def test_what_cannot_be_scored_is_refused():
    x, _ = sequences({})
    with pytest.raises(ValueError, match="complete rows"):
        learn(Template(NAMES), {"x": torch.where(x > 1, torch.nan, x)})
    with pytest.raises(ValueError, match="orders of at most 16 variables, got 17"):
        learn(Template(tuple(f"v{i}" for i in range(17))), {"x": torch.zeros(2, 2, 17)})
    many = Template(("a",), static=tuple(f"s{i}" for i in range(17)))
    with pytest.raises(ValueError, match="at most 16 static variables, got 17"):
        learn(many, {"x": torch.zeros(2, 2, 1), "static": torch.zeros(2, 17)})
    with pytest.raises(ValueError, match="bdeu scores categorical"):
        learn(Template(NAMES), {"x": x}, score=bdeu)
    with pytest.raises(ValueError, match="bge scores linear-Gaussian"):
        learn(Template(NAMES, states=STATES), {"x": sequences(STATES)[0]})
