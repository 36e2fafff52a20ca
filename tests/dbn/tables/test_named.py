"""Columns by name: variables= in any order, names of data frames and xarray axes, text as states."""

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr

from bayesdd.data import DataNote
from bayesdd.dbn import Source, Template, conjugate
from bayesdd.dbn.likelihood.source import gathered

COURSE = Template(("a", "b", "c"), static=("age", "sex"), intra=(("age", "a"),))
X = np.random.default_rng(0).normal(size=(12, 3, 3))
STATIC = np.random.default_rng(1).normal(size=(12, 2))
GIVEN = {
    "variables": Source({"x": X[..., [2, 0, 1]], "static": STATIC[:, ::-1]}, ["c", "sex", "a", "b", "age"]),
    "data frames": Source(
        {"x": [pd.DataFrame(x[:, [1, 2, 0]], columns=["b", "c", "a"]) for x in X],
         "static": pd.DataFrame(STATIC[:, ::-1], columns=["sex", "age"])}
    ),
    "dataset": Source(
        xr.Dataset(
            {"x": (("r", "t", "v"), X[..., [1, 0, 2]]), "static": (("r", "s"), STATIC[:, ::-1])},
            coords={"v": ["b", "a", "c"], "s": ["sex", "age"]},
        )
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", GIVEN)
def test_columns_are_placed_by_name(name):
    ((x, static),) = gathered(COURSE, [GIVEN[name]])
    np.testing.assert_array_equal(x, X)
    np.testing.assert_array_equal(static, STATIC)


def test_some_static_variables_are_placed_by_name_and_the_others_missing():
    (_, static), _ = gathered(
        COURSE, [Source({"x": X, "static": STATIC[:, 1]}, ["sex", "a", "b", "c"]), GIVEN["dataset"]]
    )
    assert static[:, 0].isnan().all()
    np.testing.assert_array_equal(static[:, 1], STATIC[:, 1])


NO = {
    "twice": (Source({"x": X}, ["a", "a", "b"]), "variables= names 'a' twice"),
    "text": (Source({"x": X}, "abc"), "takes a list of names"),
    "count": (Source({"x": X[..., :2]}, ["a"]), r"column 'x' of shape .*\['a'\].* got \(12, 3, 2\): name what stands"),
    "static in x": (
        Source({"x": xr.DataArray(X, dims=("r", "t", "v"), coords={"v": ["a", "b", "sex"]})}),
        "holds 'sex' .changes over time here., but the template has it as static",
    ),
    "not there": (
        Source({"x": xr.DataArray(X[..., :2], dims=("r", "t", "v"), coords={"v": ["a", "b"]})}, ["c"]),
        r"variables= names 'c', but column 'x' holds \['a', 'b'\]",
    ),
    "axis": (
        Source({"x": xr.DataArray(X, dims=("v", "t", "r"), coords={"v": list("abcdefghijkl")})}),
        "names along 'v' .* transpose it",
    ),
}


@pytest.mark.parametrize("name", NO)
def test_names_that_do_not_fit_are_refused_in_one_line(name):
    source, message = NO[name]
    with pytest.raises((ValueError, TypeError), match=f"source 0: .*{message}") as caught:
        gathered(COURSE, [source])
    assert "\n" not in str(caught.value)


def test_names_that_the_template_does_not_know_are_left_out_with_a_note():
    named = xr.DataArray(X, dims=("r", "t", "v"), coords={"v": ["c", "a", "weight"]})
    with pytest.warns(DataNote, match=r"no variables \['weight'\] of column 'x'"):
        (x, _), _ = gathered(COURSE, [Source({"x": named}), GIVEN["dataset"]])
    np.testing.assert_array_equal(x[..., [2, 0]], X[..., :2])
    assert x[..., 1].isnan().all()


STAGES = Template(("stage",), static=("sex",), states={"stage": 3, "sex": ("m", "f")}, inter=(("stage", "stage"),))


def test_states_are_coded_alike_in_all_sources_and_name_the_axes_of_tables():
    mild = pd.Categorical(["mild", "severe", None, "mild"], categories=["mild", "moderate", "severe"])
    first = Source({"x": [pd.DataFrame({"stage": mild})], "static": [["f"]]})
    text = np.array([["moderate", "severe"], ["mild", "mild"]], dtype=object)[..., None]
    second = Source({"x": text, "static": np.array([["m"], [None]], dtype=object)})
    (x, static), (y, other) = gathered(STAGES, [first, second])
    assert x[0, :, 0].nan_to_num(9).tolist() == [0, 2, 9, 0] and y[:, :2, 0].tolist() == [[1, 2], [0, 0]]
    assert static.tolist() == [[1.0]] and other[:, 0].nan_to_num(9).tolist() == [0, 9]
    assert STAGES.coords["sex_state"] == ("m", "f") and STAGES.sites["stage"] == (3, 3)
    conjugate(STAGES, {"x": y[:, :2].long(), "static": torch.zeros(2, 1).long()})


def test_numbers_that_are_no_codes_are_states_where_they_are_declared():
    given = Source({"x": np.array([1, 2, 4, 3]).reshape(2, 2, 1)})
    ((x, _),) = gathered(Template(("stage",), states={"stage": (1, 2, 3, 4)}), [given])
    assert x.flatten().tolist() == [0, 1, 3, 2]
    with pytest.raises(ValueError, match=r"'stage' has the states 0 to 3, but row 1 holds 4: .* declare its labels"):
        gathered(Template(("stage",), states={"stage": 4}), [given])
    held = Source({"x": [pd.DataFrame({"stage": pd.Categorical([1, 2, 3, 4])})]})
    with pytest.raises(ValueError, match=r"'stage' has the numbers \[1, 2, 3, 4\] as states: declare them in order"):
        gathered(Template(("stage",), states={"stage": 4}), [held])


@pytest.mark.parametrize(
    ("sources", "message"),
    [
        ([[["f"]], [["x"]]], r"source 1: variable 'sex' holds 'x', which is none of its states \['m', 'f'\]"),
        ([[["f"]], [[2]]], "source 1: .*variable 'sex' has the states 0 to 1, but row 0 holds 2"),
    ],
)
def test_a_state_that_was_never_declared_is_refused(sources, message):
    x = np.zeros((1, 2, 1), int)
    with pytest.raises(ValueError, match=message):
        gathered(STAGES, [Source({"x": x, "static": np.array(static)}) for static in sources])


def test_states_that_are_not_all_known_or_too_many_are_refused():
    stage = Template(("stage",), states={"stage": 3})
    for text, message in ((["a", "b"], "holds only the states"), (["a", "b", "c", "d"], "holds the 4 states")):
        with pytest.raises(ValueError, match=f"variable 'stage' {message}.*states="):
            gathered(stage, [Source({"x": np.array(text, dtype=object).reshape(1, -1, 1)})])
