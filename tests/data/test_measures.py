"""Measures: numbers to the user's own terms and back; sequences as tables."""

import numpy as np
import pytest
import torch

from bayesdd.data import DataNote, Distilled
from bayesdd.data.measures import TRANSFORMS, Measure, measures_of


@pytest.mark.parametrize("name", [None, *TRANSFORMS])
def test_numbers_return(name):
    measure = Measure(name, "mg/dl", centre=0.3, scale=1.7)
    values = np.array([0.2, 0.5, 0.9])
    numbers = (measure.transformed(values, "column 'x'") - 0.3) / 1.7
    np.testing.assert_allclose(measure.outside(numbers), values)
    np.testing.assert_allclose(measure.inside(values), numbers)
    assert measures_of({"a": measure.to_dict()}) == {"a": measure}


def rows():
    """Two patients of two steps: bilirubin, whose last value nobody observed, a stage and a sex."""
    about = {
        "x": {
            "weight": Measure("log", scale=2.0, low=0.1, high=30.0).to_dict(),
            "stage": Measure(labels=("I", "II")).to_dict(),
        },
        "static": {"sex": Measure(labels=("f", "m")).to_dict()},
        "time": "day",
        "every": 365.25,
    }
    x = torch.tensor([[[0.0, 1], [0.5, 0]], [[3.0, torch.nan], [torch.nan, torch.nan]]], dtype=torch.float64)
    data = {"x": x, "static": torch.tensor([[0.0], [1.0]])}
    return Distilled(data, torch.tensor([2.0, 3.0]), provenance={"sequences": about})


def test_sequences_are_tables_with_names_states_and_ranges():
    with pytest.warns(DataNote, match=r"beyond those observed, of 'weight' \(1\)"):
        long = rows().to_long()
    assert list(long) == ["patient", "day", "weight", "stage", "sex", "distilled_weight"]  # a variable is called weight
    assert long["day"].tolist() == [0.0, 365.25, 0.0]  # the last step has no entry
    np.testing.assert_allclose(long["weight"], [1.0, np.e, 30.0])
    assert long["stage"].tolist()[:2] == ["II", "I"] and long["sex"].tolist() == ["f", "f", "m"]
    with pytest.warns(DataNote, match="beyond those observed"):
        wide = rows().to_frame()
    assert list(wide) == ["sex", "weight[0]", "weight[1]", "stage[0]", "stage[1]", "distilled_weight"]


def test_rows_that_are_no_sequences_have_no_long_table():
    with pytest.raises(ValueError, match=r"sequences that bayesdd.dbn.merge or federated has made"):
        Distilled({"y": [1.0]}, [2.0]).to_long()
