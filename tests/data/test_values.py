"""Values of one column: numbers exactly, text as codes of its labels, missing as NaN, one line for anything else."""

import decimal
import math

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import torch
import xarray as xr

from bayesdd.data.values import coded, tensor


@pytest.mark.parametrize(
    ("value", "codes", "labels"),
    [
        (["west", "east", "west"], [1, 0, 1], ("east", "west")),
        (np.array(["b", "a"]), [1, 0], ("a", "b")),
        (np.array([b"b", b"a"]), [1, 0], ("a", "b")),
        (np.array([["b", "a"], ["a", "a"]]), [[1, 0], [0, 0]], ("a", "b")),
        (pd.Series(["b", None, "a", " a "]), [1, math.nan, 0, 0], ("a", "b")),
        (pd.Series(["b", "", "a"], dtype="string"), [1, math.nan, 0], ("a", "b")),
        (pd.Categorical(["low", "high"], categories=["low", "mid", "high"]), [0, 2], ("low", "mid", "high")),
        (pd.Series(["a", None], dtype="category"), [0, math.nan], ("a",)),
        (pd.Categorical([20, 10, 20]), [1, 0, 1], (10, 20)),
        (pd.cut(pd.Series([1.0, 3.0]), [0, 2, 4]), [0, 1], ("(0, 2]", "(2, 4]")),
        (np.ma.masked_array(["b", "z", "a"], [False, True, False]), [1, math.nan, 0], ("a", "b")),
        (xr.DataArray(["b", "a"]), [1, 0], ("a", "b")),
        (pd.Index(["b", "a"]), [1, 0], ("a", "b")),
    ],
)
def test_text_becomes_codes_in_the_order_of_its_labels(value, codes, labels):
    found = coded(value, "column 'g'")
    expected = torch.tensor(codes)
    assert found.labels == labels
    assert found.values.dtype == (torch.float64 if expected.is_floating_point() else torch.int64)
    np.testing.assert_array_equal(found.values, expected.double())
    again = coded(value, "column 'g'", labels)
    assert again.labels == labels
    np.testing.assert_array_equal(again.values, expected.double())


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.array([1.0, None, 2.5], dtype=object), [1.0, math.nan, 2.5]),
        ([1, None], [1.0, math.nan]),
        (np.array([3, 2], dtype=object), [3, 2]),
        (np.array([True, None], dtype=object), [1.0, math.nan]),
        (np.array([True, False], dtype=object), [1, 0]),
        ([decimal.Decimal("0.5"), decimal.Decimal("1.5")], [0.5, 1.5]),
        (pd.array([1, None], dtype="Int64"), [1.0, math.nan]),
        (pd.array([1.5, None], dtype="Float64"), [1.5, math.nan]),
        (pd.Series([True, False], dtype="boolean"), [1, 0]),
        (np.array([1, 2], dtype=">i8")[::-1], [2, 1]),
        (np.broadcast_to(np.float32(0.5), (2,)), [0.5, 0.5]),
        (np.ma.masked_array([[1.0, 9.0], [2.0, 3.0]], [[False, True], [False, False]]), [[1.0, math.nan], [2.0, 3.0]]),
        (scipy.sparse.csr_matrix(np.eye(2)), [[1.0, 0.0], [0.0, 1.0]]),
        (pd.arrays.SparseArray([0.0, 2.0]), [0.0, 2.0]),
        (torch.eye(2).to_sparse(), [[1.0, 0.0], [0.0, 1.0]]),
    ],
)
def test_numbers_come_out_exactly_and_missing_ones_as_nan(value, expected):
    found = coded(value, "column 'x'")
    assert found.labels == ()
    assert found.values.dtype == (torch.int64 if np.asarray(expected).dtype.kind == "i" else torch.float64)
    np.testing.assert_array_equal(found.values, expected)
    assert torch.equal(tensor(value, "column 'x'").nan_to_num(), found.values.nan_to_num())


def test_text_without_rows_has_no_labels():
    """That rows are needed is said by who knows the other columns."""
    found = coded(np.array([], dtype=str), "data: column 'y'")
    assert found.labels == () and found.values.shape == (0,)


def test_known_labels_keep_their_codes():
    known = ("east", "north", "west")
    assert coded(["west", "east"], "column 'g'", known).values.tolist() == [2, 0]
    assert coded(pd.Categorical(["west", "east"]), "column 'g'", known).values.tolist() == [2, 0]
    assert coded(torch.tensor([2, 0]), "column 'g'", known).values.tolist() == [2, 0]
    assert coded([20, 10], "column 'g'", (10, 20)).values.tolist() == [1, 0]
    assert coded([0.3, 0.9], "column 'g'", ("no", "yes")).values.tolist() == [0.3, 0.9]


@pytest.mark.parametrize(
    ("value", "known", "words"),
    [
        (["south"], ("east", "north"), ["'g'", "'south'", "'east'"]),
        ([30], (10, 20), ["'g'", "30", "10, 20"]),
        ([0, 3], ("east", "north"), ["'g'", "codes 0 to 1"]),
        ([True], ("east", "north"), ["'g'", "'east'", "True"]),
        (["a"], (), ["'g'", "text", "'a'"]),
        (pd.Categorical(["a"]), (), ["'g'", "'a'", "numbers"]),
        (["1", "2"], None, ["'g'", "numbers written as text", "'1'"]),
        (["1,5", "2,5"], None, ["'g'", "'1,5'"]),
        (["1.5", "?"], None, ["'g'", "numbers and '?'", "NaN"]),
        (["a", "nan"], None, ["'g'", "'a'", "NaN"]),
        (["2020-01-31", "2020-02-01"], None, ["'g'", "dates", "2020-01-31", "days since"]),
        (["31.1.2020"], None, ["'g'", "dates", "31.1.2020"]),
        (np.array(["2020-01-01"], dtype="datetime64[D]"), None, ["'g'", "dates", "2020-01-01"]),
        (pd.Series(pd.to_datetime(["2020-01-01"])), None, ["'g'", "dates", "2020-01-01"]),
        (pd.Series(pd.to_timedelta([1], unit="D")), None, ["'g'", "times", "days"]),
        (pd.Series(pd.period_range("2020", periods=2, freq="Y")), None, ["'g'", "dates", "2020"]),
        ([pd.Timestamp("2020-01-01").date()], None, ["'g'", "dates", "2020-01-01"]),
        ([1.0, "a"], None, ["'g'", "'a'"]),
        ([{}, []], None, ["'g'", "{}"]),
        ([2**70, 1], None, ["'g'", "64"]),
    ],
)
def test_what_is_refused_names_column_value_and_remedy(value, known, words):
    with pytest.raises(ValueError) as caught:
        coded(np.array(value, dtype=object) if isinstance(value, list) else value, "column 'g'", known)
    assert "\n" not in str(caught.value)
    assert all(word in str(caught.value) for word in words), str(caught.value)
