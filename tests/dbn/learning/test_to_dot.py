"""Networks in the language of Graphviz: every edge once, names quoted."""

import re

import pandas as pd
import pytest

import bayesdd
from bayesdd import dbn
from bayesdd.dbn.learning import Edges

NET = dbn.Template(("dose", 'a "b"'), (("dose", 'a "b"'),), (("dose", "dose"),), static=("age",))


def test_every_edge_is_written_once_and_names_are_quoted():
    text = dbn.to_dot(NET)
    found = re.findall(r"^  (.*) -> (.*);$", text, flags=re.M)
    assert found == [('"dose"', r'"a \"b\""'), ('"dose (t - 1)"', '"dose"')]
    assert '"age" [shape=box];' in text and text.startswith("digraph") and text.endswith("}\n")


def test_edges_carry_their_probabilities():
    edges = Edges(NET, pd.Series({("age", "dose"): 0.8, ("dose_before", "dose"): 0.05}))
    assert re.findall(r'-> "dose" \[label="(.*?)"', dbn.to_dot(edges)) == ["0.80"]
    with pytest.raises(bayesdd.Refusal, match=r"dbn\.Template"):
        dbn.to_dot("dose")
