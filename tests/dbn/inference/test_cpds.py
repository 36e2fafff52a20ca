"""Hand-over to other packages: the product of the conditional distributions is the template's density."""

import doctest
import itertools
import math
import re
import types

import numpy as np
import pytest
import torch
from scipy import stats

from bayesdd import dbn
from bayesdd.dbn import Template

STATES = Template(
    ("mood", "sleep"),
    static=("sex",),
    intra=(("mood", "sleep"), ("sex", "mood")),
    inter=(("mood", "mood"),),
    states={"mood": ("low", "fair", "high"), "sleep": 2, "sex": ("f", "m")},
)
NUMBERS = Template(("a", "b"), static=("age",), intra=(("a", "b"), ("age", "a")), inter=(("a", "a"), ("b", "a")))


def draws(template, count=3):
    generator = torch.Generator().manual_seed(0)
    found = {}
    for site, shape in template.sites.items():
        value = torch.randn(count, *shape, generator=generator, dtype=torch.float64)
        found[site] = value.softmax(-1) if template.states else value if shape else 0.2 + value.abs()
    return found


def mean(values):
    return {site: value.mean(0, keepdim=True) for site, value in values.items()}


def test_tables_multiply_to_the_density_and_stand_in_the_text():
    values = draws(STATES)
    found = dbn.cpds(STATES, values, 2)
    text = dbn.to_bif(STATES, values, 2)
    for sex, m0, s0, m1, s1 in itertools.product((0, 1), (0, 2), (0, 1), (0, 1), (1,)):
        state = {"sex": sex, "mood_0": m0, "sleep_0": s0, "mood_1": m1, "sleep_1": s1}
        logs = 0.0
        for cpd in found:
            column = np.ravel_multi_index([state[name] for name in cpd["evidence"]] or [0], cpd["evidence_card"] or [1])
            logs += math.log(cpd["values"][state[cpd["variable"]]][column])
        rows = {"x": torch.tensor([[[m0, s0], [m1, s1]]]), "static": torch.tensor([[sex]])}
        assert abs(logs - float(dbn.log_likelihood(STATES, mean(values), rows)[0, 0])) < 1e-12
    entry = dict(found[3])
    assert entry["evidence"] == ["sex", "mood_0"] and entry["variable"] == "mood_1"
    line = re.search(r"probability \( mood_1 \| sex, mood_0 \) \{\n(?:.*\n){4}  \(m, fair\) (.*);", text)
    np.testing.assert_allclose([float(p) for p in line[1].split(", ")], np.array(entry["values"])[:, 4])
    assert text.count("probability (") == 5 and "type discrete [ 3 ] { low, fair, high };" in text


def test_regressions_multiply_to_the_density():
    values = draws(NUMBERS)
    seen = {"age": 0.3, "a_0": -0.4, "b_0": 1.1, "a_1": 0.2, "b_1": -0.7}
    logs = 0.0
    for cpd in dbn.cpds(NUMBERS, values, 2):
        centre = np.dot(cpd["beta"], [1.0, *(seen[name] for name in cpd["evidence"])])
        logs += stats.norm(centre, cpd["std"]).logpdf(seen[cpd["variable"]])
    x = torch.tensor([[[-0.4, 1.1], [0.2, -0.7]]], dtype=torch.float64)
    rows = {"x": x, "static": torch.tensor([[0.3]], dtype=torch.float64)}
    assert abs(logs - float(dbn.log_likelihood(NUMBERS, mean(values), rows)[0, 0])) < 1e-12


def test_what_other_packages_do_not_take_is_refused():
    both = Template(("a", "c"), states={"c": 2})
    with pytest.raises(ValueError, match="this template has both: leave 'c' and the other categorical"):
        dbn.cpds(both, {}, 2)
    with pytest.raises(ValueError, match=r"take cpds\(\) for linear-Gaussian ones"):
        dbn.to_bif(NUMBERS, {}, 2)
    with pytest.raises(ValueError, match="of at least one, got 0"):
        dbn.cpds(NUMBERS, {}, 0)


def test_examples_say_what_comes_out():
    course = Template(("a", "b"), intra=(("a", "b"),), inter=(("a", "a"),))
    names = {"cpds": dbn.cpds, "to_bif": dbn.to_bif, "Template": Template, "np": np}
    names["full"] = types.SimpleNamespace(draws=draws(course))
    runner = doctest.DocTestRunner(verbose=False)
    for verb in (dbn.cpds, dbn.to_bif):
        example = doctest.DocTestParser().get_doctest(verb.__doc__, names, verb.__name__, None, None)
        assert runner.run(example).failed == 0 and runner.tries > 0
