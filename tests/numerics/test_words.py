"""What objects say of themselves: a few lines, without values, escaped in notebooks."""

import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
import torch

import bayesdd
from bayesdd import dbn
from bayesdd.data.certificate import Certificate
from bayesdd.dbn.inference.pooling import Pooled
from bayesdd.dbn.learning import Edges
from bayesdd.numerics import words

NET = dbn.Template(("dose", "symptom"), (("dose", "symptom"),), (("symptom", "symptom"),), static=("<b>age",))
GOOD = Certificate(1e-3, 1e-4, 2e-3, 1e-4, 1e-3, 1e-4, 0.1, 0.05, 900.0, 10.0, 10.0, 0.0, 1000, 0.05)
ROWS = (torch.zeros(30, 4, 2), torch.zeros(30, 1))


def model(x, y=None):
    """A slope."""
    w = pyro.sample("w", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
    with pyro.plate("data", len(x)):
        return pyro.sample("y", dist.Normal(x @ w, 1.0), obs=y)


TASK = bayesdd.Task(model, {"x": np.ones((30, 2)) * np.arange(30)[:, None], "y": np.arange(30.0)})
OBJECTS = {
    "Task": (TASK, ["30 rows", "2 unconstrained", "x (2,)", "w (2,)", "observed"]),
    "Distilled": (bayesdd.Distilled({"x": np.ones((3, 2))}, np.ones(3), GOOD), ["3", "x", "certified"]),
    "certified": (GOOD, ["0.001 +- 0.0001 nats", "the posterior of these rows"]),
    "Source": (dbn.Source({"x": ROWS[0]}, variables=("dose",), noise=0.5), ["30 rows", "x (4, 2)", "dose", "0.5"]),
    "Template": (NET, ["2 linear-Gaussian", "dose -> symptom", "symptom -> symptom"]),
    "Pooled": (Pooled(NET, (), [ROWS], {"dose": torch.zeros(7, 2)}, torch.zeros(1), 1.01), ["7 draws", "30", "1.010"]),
    "Edges": (
        Edges(NET, pd.Series({("<b>age", "dose"): 0.8, ("dose_before", "dose"): 0.3})),
        ["1 of 2", "-> dose", "0.80", "0.30"],
    ),
}


@pytest.mark.parametrize("name", OBJECTS)
def test_a_few_lines_say_what_it_is(name):
    thing, said = OBJECTS[name]
    text = str(thing) if name == "Template" else repr(thing)
    assert text.startswith(name) and text.count("\n") < 12 and max(map(len, text.splitlines())) < 160
    assert all(word in text for word in said) and "tensor(" not in text and "array(" not in text
    page = thing._repr_html_()
    assert page.startswith("<p><b") and "<b>age" not in page and "tensor(" not in page


def test_the_hash_of_a_model_sees_every_setting_of_its_template():
    # Hashes are made of reprs: two templates that differ must not look alike there, however short their text.
    other = dbn.Template(NET.variables, NET.intra, NET.inter, NET.static, variance_shape=3.0)
    assert str(other) == str(NET) and repr(other) != repr(NET)


def test_many_names_are_counted():
    assert words.listed(range(10)) == "0, 1, 2, 3, 4, 5, 6, 7 and 2 more" and words.listed([]) == "none"
