"""Edges from sources against enumeration of all networks, and rows from which they can be learned again."""

import collections
import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats

from bayesdd import dbn
from bayesdd.dbn import Source, Template, edges, learn, merge, pooled
from bayesdd.dbn.inference.regressions import Layout
from bayesdd.dbn.learning import order_chain
from bayesdd.dbn.learning.orders import Candidates, best, drawn, masks
from bayesdd.dbn.learning.scores import Sample, bge
from bayesdd.dbn.learning.search import total
from bayesdd.dbn.merging.excess import expected_gram, implied

WIDE = torch.randn(9, 3, 32, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
NET = Template(("b", "a", "c"), static=("s",), intra=(("s", "a"), ("a", "b")), inter=(("a", "a"), ("c", "b")))


def values(template, seed=0):
    """Every coefficient is far from zero, and sequences stay bounded."""
    generator, found = torch.Generator().manual_seed(seed), {}
    for site, shape in template.sites.items():
        sign = torch.randn(shape, generator=generator, dtype=torch.float64).sign()
        found[site] = 0.6 * sign if shape else torch.tensor(0.5, dtype=torch.float64)
    return found


def orders_of(pairs, names):
    """Number of orders of the names in which parents precede children."""
    return sum(
        all(order.index(u) < order.index(v) for u, v in pairs if u in names) for order in itertools.permutations(names)
    )


@pytest.mark.parametrize("chain", [False, True])
@pytest.mark.parametrize("after", [[0, 0, 0], [0b100, 0, 0]])
@pytest.mark.long
def test_networks_are_drawn_by_their_scores_and_orders(after, chain):
    """Three variables and one more parent; the table of scores is random."""
    generator = torch.Generator().manual_seed(0)
    table = 1.5 * torch.randn(3, 16, generator=generator, dtype=torch.float64)
    sets = [masks([u for u in range(4) if u != v], 4) for v in range(3)]
    candidates = Candidates(sets, [table[v][some] for v, some in enumerate(sets)], after)
    exact = {}
    options = [[mask for mask in range(16) if not mask >> v & 1] for v in range(3)]
    behind = [(u, v) for u in range(3) for v in range(3) if after[u] >> v & 1]
    for chosen in itertools.product(*options):
        pairs = [(u, v) for v, mask in enumerate(chosen) for u in range(4) if mask >> u & 1]
        count = orders_of([*pairs, *behind], range(3))
        if count:
            exact[frozenset(pairs)] = count * math.exp(sum(float(table[v][mask]) for v, mask in enumerate(chosen)))
    draws, norm = 4000, sum(exact.values())
    order = order_chain.start(after, generator)

    def one():
        nonlocal order
        if not chain:
            return drawn(candidates, generator)
        for _ in range(2):  # draws nearly independent
            order, pairs = order_chain.moved(candidates, order, generator)
        return pairs

    seen = collections.Counter(frozenset(one()) for _ in range(draws))
    assert set(seen) <= set(exact)
    common = [net for net, weight in exact.items() if weight / norm * draws > 5]
    expected = np.array([*(exact[net] / norm * draws for net in common), 0.0])
    expected[-1] = draws - expected.sum()
    observed = [*(seen[net] for net in common), draws - sum(seen[net] for net in common)]
    assert stats.chisquare(observed, expected).pvalue > 1e-3
    top = max(exact, key=lambda net: exact[net] / orders_of([*net, *behind], range(3)))
    assert frozenset(best(candidates)) == top


def test_moments_score_as_their_rows_do():
    generator = torch.Generator().manual_seed(0)
    rows, weight = torch.randn(9, 3, generator=generator, dtype=torch.float64), torch.linspace(0.5, 2, 9).double()
    design = torch.cat([torch.ones(9, 1, dtype=torch.float64), rows], 1)
    theirs = Sample.of_moments(design.mT @ (weight[:, None] * design))
    for size in range(4):
        sets = torch.tensor(list(itertools.combinations(range(3), size)), dtype=torch.int64)
        torch.testing.assert_close(bge(theirs, sets), bge(Sample(rows, weight, ()), sets))


def exact_shares(template, x, networks, orders):
    """Edge -> posterior probability, over networks (intra, inter) of so many orders each."""
    exact, norm = collections.Counter(), 0.0
    for intra, inter in networks:
        weight = orders(intra) * math.exp(total(replace(template, intra=intra, inter=inter), {"x": x}) + 150)
        norm += weight
        exact.update(dict.fromkeys([*intra, *((f"{u}_before", v) for u, v in inter)], weight))
    return lambda index: np.array([exact[pair] / norm for pair in index])


@pytest.mark.long
def test_rules_leave_the_networks_that_follow_them_their_probabilities():
    truth = Template(("a", "b"), intra=(("a", "b"),), inter=(("a", "a"),))
    x = dbn.simulate(truth, {k: v / 4 if v.shape else v for k, v in values(truth).items()}, 14, 3, seed=1)["x"]
    frame, every = Template(("a", "b")), list(itertools.product("ab", repeat=2))
    for rules, intras, kept in (
        ({"within": False}, [()], lambda inter: True),
        ({"tiers": [("b",), ("a",)]}, [(), (("b", "a"),)], lambda inter: True),
        (
            {"required": [("a_before", "a")], "forbidden": [("b", "a"), ("b_before", "a")]},
            [(), (("a", "b"),)],
            lambda inter: ("a", "a") in inter and ("b", "a") not in inter,
        ),
    ):
        inters = [i for k in range(5) for i in itertools.combinations(every, k) if kept(i)]
        shares = exact_shares(frame, x, itertools.product(intras, inters), lambda intra: orders_of(intra, "ab"))
        found = edges(frame, [Source({"x": x})], draws=200, seed=0, **rules).probability
        share = shares(found.index)
        assert (np.abs(found - share) <= 4.5 * np.sqrt(share * (1 - share) / 800) + 1e-9).all()
        assert len(found) == 6  # forbidden and required ones too


@pytest.mark.long
def test_many_variables_are_searched_by_themselves_without_edges_within_a_slice():
    """Parents of one variable against enumeration, among 18 variables."""
    names = tuple(f"v{k}" for k in range(18))
    truth = Template(names, inter=(*((name, name) for name in names), ("v0", "v1"), ("v2", "v1")))
    parameters = {k: torch.full(v.shape, 0.35).double() if v.shape else v for k, v in values(truth).items()}
    x = dbn.simulate(truth, parameters, 30, 3, seed=5)["x"]
    found = edges(Template(names), [Source({"x": x})], draws=100, burn=20, seed=0, max_parents=2, within=False)
    scores = {
        parents: total(Template(names, inter=[(p, "v1") for p in parents]), {"x": x})
        for size in range(3)
        for parents in itertools.combinations(names, size)
    }
    top = max(scores.values())
    weight = {parents: math.exp(score - top) for parents, score in scores.items()}
    share = {p: sum(w for parents, w in weight.items() if p in parents) / sum(weight.values()) for p in names}
    for parent, exact in share.items():
        said = found.probability[f"{parent}_before", "v1"]
        assert abs(said - exact) <= 4.5 * math.sqrt(exact * (1 - exact) / 400) + 1e-9
    assert not found.template.intra and 0.05 < sorted(share.values())[-3] < 0.95


def fed(parents):
    """Complete sequences of five variables, one of which depends strongly on so many others, of the slice before."""
    names = ("a", "b", "c", "d", "y")
    x = torch.randn(60, 3, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x[:, 1:, 4] += 2 * x[:, :-1, :parents].sum(2)
    return Template(names), [Source({"x": x})]


def test_as_many_parents_as_are_looked_at_are_said():
    """By default; who asks for a number knows it, and one parent fewer is no reason to ask for more."""
    frame, sources = fed(4)
    few = {"draws": 20, "burn": 7}
    with pytest.warns(UserWarning, match=r"edges: y nearly always has 4 parents, .* max_parents=5") as caught:
        found = edges(frame, sources, **few)
    assert len(caught) == 1
    assert {(f"{name}_before", "y") for name in "abcd"} <= {pair for pair, p in found.probability.items() if p > 0.99}
    edges(frame, sources, max_parents=4, **few)  # a warning would be an error
    edges(*fed(3), **few)


@pytest.mark.long
def test_complete_sources_give_every_network_its_probability():
    frame = Template(("a", "b"))
    truth = Template(("a", "b"), intra=(("a", "b"),), inter=(("a", "a"),))
    x = dbn.simulate(truth, {k: v / 4 if v.shape else v for k, v in values(truth).items()}, 14, 3, seed=1)["x"]
    pairs = list(itertools.product("ab", repeat=2))
    inters = [some for k in range(5) for some in itertools.combinations(pairs, k)]
    networks = itertools.product([(), (("a", "b"),), (("b", "a"),)], inters)
    exact = exact_shares(frame, x, networks, lambda intra: orders_of(intra, "ab"))
    sources = [Source({"x": x[:6]}), Source({"x": x[6:]})]
    found = edges(frame, sources, draws=200, seed=0)
    shares = exact(found.probability.index)
    assert 0.1 < np.median(shares) < 0.9
    error = np.sqrt(shares * (1 - shares) / 800)
    assert (np.abs(found.probability - shares) <= 4.5 * error + 1e-9).all()
    likely = {pair for pair, share in found.probability.items() if share > 0.5}
    kept = {*found.template.intra, *((f"{u}_before", v) for u, v in found.template.inter)}
    assert kept == likely


def sources_of(truth, count=150):
    data = dbn.simulate(truth, values(truth), count, 3, seed=2)
    generator = torch.Generator().manual_seed(3)
    noisy = data["x"] + 0.2 * torch.randn(data["x"].shape, generator=generator, dtype=torch.float64)
    parts = torch.arange(count).tensor_split(3)
    seen = [("a", "b", "s"), ("b", "c", "s"), ("a", "c", "s")]
    return [
        Source(
            {
                "x": noisy[at][..., sorted(truth.variables.index(n) for n in names if n != "s")],
                "static": data["static"][at],
            },
            tuple(n for n in (*truth.variables, "s") if n in names),
            noise={"a": 0.2, "b": 0.2, "c": 0.2},
        )
        for at, names in zip(parts, seen, strict=True)
    ]


@pytest.fixture(scope="module")
def sources():
    return sources_of(NET)


@pytest.fixture(scope="module")
def full(sources):
    return pooled(NET, sources, draws=2000)


@pytest.mark.long
def test_sources_that_miss_variables_give_the_edges(sources):
    frame = Template(NET.variables, static=("s",))
    found = edges(frame, sources, draws=30, seed=0)
    true = {*NET.intra, *((f"{u}_before", v) for u, v in NET.inter)}
    assert set(found.probability.index[: len(true)]) == true
    assert set(found.template.intra) >= set(NET.intra) and set(found.template.inter) >= set(NET.inter)
    assert found.probability.between(0, 1 + 1e-9).all()


def test_expected_moments_are_those_of_many_sequences(full):
    centre = {site: full.draws[site].mean(0) for site in NET.sites}
    data, count = dbn.simulate(NET, centre, 20_000, 3, seed=5), 20_000
    layout = Layout.of(NET)
    x = data["x"][..., [NET.variables.index(name) for name in NET.structure.order]]
    theirs = layout.grams(x, data["static"], torch.full((count,), full.count / count, dtype=torch.float64))
    exact = expected_gram(full, 3)
    scale = (exact.diagonal(dim1=1, dim2=2) / full.count).sqrt() + 1e-12
    off = (theirs - exact) / full.count / scale[:, :, None] / scale[:, None, :]
    assert float(off.abs().max()) < 6 / math.sqrt(count)


@pytest.mark.filterwarnings("ignore:complete rows over-state")
def test_edges_learned_from_complete_rows_are_those_of_the_template(full):
    frame = Template(NET.variables, static=("s",))
    found = merge(NET, full.sources, size=12, complete=True, learn_edges=True, full=full)
    again = learn(frame, found.data, found.weight)
    assert set(again.inter) == set(NET.inter)
    skeleton = {frozenset(pair) for pair in NET.intra}
    assert {frozenset(pair) for pair in again.intra} == skeleton
    loose = merge(NET, full.sources, size=12, complete=True, full=full)
    assert found.provenance["excess"] < loose.provenance["excess"] + 0.1
    # Nothing is left of the moments' own excess where rows have them.
    assert float(implied(full, 3)(expected_gram(full, 3))) == pytest.approx(0, abs=1e-6)


@pytest.mark.filterwarnings("ignore:complete rows over-state")
def test_few_rows_to_learn_edges_from_weigh_one_each(full):
    found = merge(NET, full.sources, size=3, complete=True, learn_edges=True, full=full)
    assert float(found.weight.sum()) == pytest.approx(3)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda f: edges(Template(("a",), states={"a": 2}), []), "edges.. is for linear-Gaussian variables"),
        (lambda f: edges(NET, f.sources, draws=0), "at least one sweep, got 0"),
        (lambda f: edges(Template(tuple(f"v{k}" for k in range(32))), [Source({"x": WIDE})]), "62 nodes, .* got 64"),
        (
            lambda f: edges(
                Template(tuple(f"v{k}" for k in range(24))), [Source({"x": WIDE[..., :24]})], max_parents=7
            ),
            "lower max_parents",
        ),
        (lambda f: edges(NET, f.sources, forbidden=[("a", "z")]), r"\('a', 'z'\) is no edge .* a_before, c_before"),
        (lambda f: edges(NET, f.sources, required=[("a_before", "s")]), "is no edge"),
        (lambda f: edges(NET, f.sources, required=[("a", "b")], within=False), "'a' -> 'b' is required and forbidden"),
        (lambda f: edges(NET, f.sources, required=[("a", "b"), ("b", "a")]), "close a circle within a slice: "),
        (lambda f: edges(NET, f.sources, required=[("a", "b"), ("c", "b")], max_parents=1), "'b' has 2 required"),
        (lambda f: edges(NET, f.sources, forbidden=("ab", "c")), "'ab' is no edge"),
        (lambda f: edges(NET, f.sources, forbidden=[("a",)]), r"\('a',\) is no edge"),
        (lambda f: edges(NET, f.sources, tiers=("ab", "c")), r"needs groups of names, such as \[\('ab',\), "),
        (lambda f: edges(NET, f.sources, tiers=[("a",), ("b", "a")]), "'a' stands in two of the tiers="),
        (lambda f: edges(NET, f.sources, max_parents=-1), "max_parents= must be a whole number from 0"),
        (lambda f: edges(NET, f.sources, tiers=[("a",), ("z",)]), "tiers= names 'z'; the variables are b, a, c"),
        (lambda f: merge(NET, f.sources, size=3, learn_edges=True, full=f), "learn_edges=True. is for complete=True"),
    ],
)
def test_what_cannot_be_learned_is_refused(full, call, words):
    with pytest.raises(ValueError, match=words):
        call(full)
