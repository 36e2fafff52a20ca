"""Columns: what goes in comes out, exactly; what cannot be rows is refused in one line that names the column."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr

from bayesdd.data.columns import DataNote, fingerprint, read, table, to_frame
from bayesdd.numerics.refusal import Refusal


def columns():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(7, 2, 3)) * 10.0 ** rng.integers(-300, 300, size=(7, 2, 3))
    x[3, 1, 2] = math.nan
    return {"x": x, "y": rng.integers(-(2**62), 2**62, size=7), "t": rng.normal(size=(7, 4))}


def assert_same(read_columns, expected):
    assert list(read_columns) == list(expected)
    for name, value in expected.items():
        np.testing.assert_array_equal(read_columns[name].numpy(), value)
        assert read_columns[name].dtype == (torch.int64 if value.dtype.kind in "iub" else torch.float64)


@pytest.mark.parametrize("kind", ["arrays", "tensors", "dataset", "frame", "nc", "npz", "csv"])
def test_every_source_gives_the_same_columns(kind, tmp_path):
    expected = columns()
    dataset = xr.Dataset({k: (("row", *(f"{k}_{i}" for i in range(v.ndim - 1))), v) for k, v in expected.items()})
    frame = to_frame({k: torch.from_numpy(v) for k, v in expected.items()})
    dataset.to_netcdf(tmp_path / "rows.nc", engine="netcdf4")
    np.savez(tmp_path / "rows.npz", **expected)
    frame.to_csv(tmp_path / "rows.csv", index=False)
    source = {
        "arrays": expected,
        "tensors": {k: torch.from_numpy(v).requires_grad_(v.dtype.kind == "f") for k, v in expected.items()},
        "dataset": dataset,
        "frame": frame,
    }.get(kind, tmp_path / f"rows.{kind}")
    result = read(source)
    assert_same(result, expected)
    assert not any(column.requires_grad for column in result.values())
    assert fingerprint(result) == fingerprint(read(expected))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ([True, False], np.array([1, 0])),
        (np.array([1, 2], dtype=">i4"), np.array([1, 2])),
        (np.array([1, 2], dtype="uint8"), np.array([1, 2])),
        (np.array([1.5, 2], dtype=">f4"), np.array([1.5, 2])),
        (torch.tensor([1.5, 2], dtype=torch.bfloat16), np.array([1.5, 2])),
        (torch.tensor([True, False]), np.array([1, 0])),
        (np.ma.masked_array([1, 2], [False, True]), np.array([1, math.nan])),
        (np.ma.masked_array([1, 2]), np.array([1, 2])),
        (pd.Series([1, None], dtype="Int64"), np.array([1, math.nan])),
        (pd.Series([1, 2], dtype="Int64", index=[5, 3]), np.array([1, 2])),
        (pd.Series([True, None], dtype="boolean"), np.array([1, math.nan])),
        (xr.DataArray([1.5, 2.0]), np.array([1.5, 2.0])),
    ],
)
def test_types_become_float64_or_int64(value, expected):
    assert_same(read({"x": value}), {"x": expected})


def test_series_with_other_labels_are_taken_as_they_stand():
    """Lags by slices, a test set with its own numbers: only one index in two orders could be meant in two ways."""
    series = pd.Series([1.0, 2.0, 3.0])
    found = read({"x": series[:-1], "y": series[1:], "z": pd.Series([5.0, 6.0], index=["a", "b"])})
    assert_same(found, {"x": np.array([1.0, 2.0]), "y": np.array([2.0, 3.0]), "z": np.array([5.0, 6.0])})


def test_arrays_in_the_cells_of_a_frame_are_an_array_column():
    frame = pd.DataFrame({"x": [[1.0, 2.0], [3.0, 4.0]], "y": [np.ones(3), np.zeros(3)]})
    assert_same(read(frame), {"x": np.array([[1.0, 2.0], [3.0, 4.0]]), "y": np.array([[1.0] * 3, [0.0] * 3])})


def test_a_categorical_of_numbers_is_said_to_become_codes():
    frame = pd.DataFrame({"g": pd.Categorical([1, 2, 5, 2])})
    with pytest.warns(DataNote, match=r"'g' is a categorical of numbers.* codes 0 to 2 of 1, 2, 5; astype\(int\)"):
        assert table(frame).columns["g"].tolist() == [0, 1, 2, 1]
    assert table(pd.DataFrame({"g": pd.Categorical([1, 0])})).columns["g"].tolist() == [1, 0]


def test_a_variable_in_the_index_is_named_where_columns_are_missing():
    frame = pd.DataFrame({"y": [1.0, 2.0]}, index=pd.Index([3, 4], name="x"))

    def choose(there):
        raise Refusal("x is needed.")

    with pytest.raises(Refusal, match=r"^x is needed\. The frame's index \['x'\] .*reset_index\(\)"):
        table(frame, choose=choose)


def test_reading_copies():
    for original in (np.ones(3), torch.ones(3, dtype=torch.float64)):
        column = read({"x": original})["x"]
        original[0] = 7.0
        assert column.tolist() == [1.0, 1.0, 1.0]


def test_csv_cells(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("﻿y,x[1],x[0], x[2]\n1,2.5,,3\n\n0,NaN,1,1\n".replace(" ", ""), encoding="utf-8")
    expected = {"y": np.array([1, 0]), "x": np.array([[math.nan, 2.5, 3.0], [1.0, math.nan, 1.0]])}
    assert_same(read(path), expected)


def test_frame_spells_elements():
    frame = to_frame({"x": torch.zeros(2, 1, 2), "y": torch.zeros(2), "z": torch.zeros(2, 1)})
    assert list(frame) == ["x[0,0]", "x[0,1]", "y", "z[0]"]


@pytest.mark.parametrize(
    ("source", "error", "words"),
    [
        ({}, ValueError, ["no columns"]),
        ({"x": np.ones(3), "y": np.ones(4)}, ValueError, ["'x' has 3", "'y' has 4"]),
        ({"x": np.ones((0, 2))}, ValueError, ["no rows"]),
        ({"x": 3.0}, ValueError, ["'x'", "single number"]),
        ({"x": [1.0, 2.0], "y": ["yes", "no"]}, TypeError, ["'y'", "'yes'"]),
        ({"x": np.array([1.0, None, "?"], dtype=object)}, TypeError, ["'x'", "None"]),
        ({"x": np.array(["2020-01-01"], dtype="datetime64[D]")}, TypeError, ["'x'", "2020"]),
        ({"x": np.ones(2) * 1j}, TypeError, ["'x'"]),
        ({"x": torch.ones(2) * 1j}, TypeError, ["'x'", "complex"]),
        ({"x": [[1.0], [1.0, 2.0]]}, ValueError, ["'x'", "shape"]),
        ({"x": np.array([2**64 - 1], dtype="uint64")}, ValueError, ["'x'", "64-bit"]),
        ({"x": np.array([[0.0, 1.0], [2.0, -math.inf]])}, ValueError, ["'x'", "infinite", "row 1"]),
        ({"x": np.ones(2), "y": np.full(2, math.nan)}, ValueError, ["'y'", "every value missing"]),
        ({1: np.ones(2)}, TypeError, ["1", "string"]),
        ([1.0], TypeError, ["list", "name its columns"]),
        ([{"x": 1.0}], TypeError, ["list", "pandas.DataFrame(data)"]),
        (pd.Series([1.0], name="x"), TypeError, ["Series", "to_frame"]),
        ({"x": pd.Series([1.0, 2.0]), "y": pd.Series([1.0, 2.0])[::-1]}, ValueError, ["'x'", "'y'", "orders"]),
        (pd.DataFrame({"x": ["a", "b"]}), TypeError, ["'x'", "'a'"]),
        (pd.DataFrame({"x": pd.Categorical(["a", "b"])}), TypeError, ["'x'", "'a'"]),
        (pd.DataFrame({"x[0]": [1.0], "x[2]": [1.0]}), ValueError, ["'x[1]'", "missing"]),
        (pd.DataFrame({"x[0,0]": [1.0], "x[1,1]": [1.0], "x[1,0]": [1.0]}), ValueError, ["'x[0,1]'"]),
        (pd.DataFrame({"x[0]": [1.0], "x[0,1]": [1.0]}), ValueError, ["'x[0]'", "'x[0,1]'"]),
        (pd.DataFrame({"x": [1.0], "x[0]": [1.0]}), ValueError, ["'x'", "'x[0]'"]),
        (pd.DataFrame({"x[0]": [1.0], "x[00]": [1.0]}), ValueError, ["'x[0]'", "'x[00]'"]),
        (pd.DataFrame([[1.0, 2.0]], columns=["x", "x"]), ValueError, ["'x'", "2 columns"]),
        (xr.Dataset({"x": (("d", "n"), np.ones((2, 2))), "y": ("n", np.ones(2))}), ValueError, ["'n'", "transpose"]),
        (xr.Dataset({"x": ("n", np.ones(2))}, attrs={"bayesdd_format": 1}), ValueError, ["from_netcdf"]),
    ],
)
def test_refusals_are_one_line(source, error, words):
    with pytest.raises(error) as caught:
        read(source)
    message = str(caught.value)
    assert "\n" not in message
    assert all(word in message for word in words), message


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ["rows.csv"]),
        ("x,y\n", ["no rows"]),
        ("x,y\n1,2\n1\n", ["line 3", "1 cells", "header 2"]),
        ("x\n1,2\n", ["line 2"]),
        ("x,x\n1,2\n", ["'x'", "2 columns"]),
        (",x\n0,1\n", ["no name", "index"]),
        ("x;y\n1,5;2\n", ["between ';'", "pandas.read_csv(path, sep=';')"]),
        ("x,y\n1,\n2,\n", ["'y'", "missing"]),
        ("x,y\n1,a\n2,b\n", ["'y'", "'a'"]),
    ],
)
def test_csv_refusals(text, words, tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text(text)
    with pytest.raises((ValueError, TypeError)) as caught:
        read(path)
    message = str(caught.value)
    assert "\n" not in message and "rows.csv" in message
    assert all(word in message for word in words), message


def test_damaged_files(tmp_path):
    expected = columns()
    np.savez(tmp_path / "rows.npz", **expected)
    xr.Dataset({"t": (("row", "d"), expected["t"])}).to_netcdf(tmp_path / "rows.nc", engine="netcdf4")
    (tmp_path / "rows.csv").write_bytes(b"x,y\n1,\xff\xfe\n")
    for suffix in ("nc", "npz"):
        whole = (tmp_path / f"rows.{suffix}").read_bytes()
        for size in (0, 20, len(whole) // 2, len(whole) - 10):
            (tmp_path / f"rows.{suffix}").write_bytes(whole[:size])
            with pytest.raises(ValueError, match=rf"^\S*rows\.{suffix} cannot be read.*$"):
                read(tmp_path / f"rows.{suffix}")
    with pytest.raises(ValueError, match=r"^\S*rows\.csv cannot be read.*$"):
        read(str(tmp_path / "rows.csv"))


def test_objects_in_an_archive_are_not_run(tmp_path):
    np.savez(tmp_path / "rows.npz", x=np.array([{}, []], dtype=object))
    with pytest.raises(ValueError, match=r"^\S*rows\.npz cannot be read.*$"):
        read(tmp_path / "rows.npz")


def test_absent_and_unknown_files(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"^\S*rows\.nc: no such file$"):
        read(tmp_path / "rows.nc")
    with pytest.raises(ValueError, match=r"\.nc, \.npz, \.csv, \.zarr or \.parquet.*'\.xlsx'"):
        read(tmp_path / "rows.xlsx")
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(IsADirectoryError, match="folder"):
        read(tmp_path / "folder.csv")


def test_fingerprint_sees_all_but_order_and_the_sign_of_nan():
    base = {"x": torch.tensor([1.0, math.nan]), "y": torch.tensor([1, 2])}
    same = {"y": torch.tensor([1, 2]), "x": torch.tensor([1.0, -math.nan])}
    assert fingerprint(base) == fingerprint(same)
    others = [
        {**base, "x": torch.tensor([1.0, 2.0])},
        {**base, "y": torch.tensor([1.0, 2.0])},
        {**base, "y": torch.tensor([2, 1])},
        {**base, "y": torch.tensor([[1], [2]])},
        {"x": base["x"], "z": base["y"]},
        {"x": base["x"]},
    ]
    assert len({fingerprint(c) for c in [base, *others]}) == len(others) + 1


def test_a_fingerprint_does_not_depend_on_the_pieces(monkeypatch):
    columns = {
        "x": torch.arange(14.0).reshape(7, 2).T.contiguous().T,
        "y": torch.tensor([1.0, math.nan, 2, 3, 4, 5, 6]),
    }
    whole = fingerprint(columns)
    monkeypatch.setattr("bayesdd.data.columns.HASHED_AT_ONCE", 2)
    assert fingerprint(columns) == whole
