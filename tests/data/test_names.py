"""Names of columns: elements of arrays, selections, likenesses."""

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr

from bayesdd.data.columns import table, to_frame
from bayesdd.data.disk import on_disk
from bayesdd.data.names import closest

FRAME = pd.DataFrame(
    {
        "age": [50.0, 60.0, 70.0],
        "bmi": [20, 25, 30],
        "died": ["no", "yes", "no"],
        "s[0]": [1.0, 2.0, 3.0],
        "s[1]": [4.0, 5.0, 6.0],
        "when": pd.to_datetime(["2020-01-01"] * 3),
    }
)


def sources(path):
    FRAME.drop(columns="when").to_csv(path / "rows.csv", index=False)
    yield from (FRAME, path / "rows.csv", {name: FRAME[name] for name in FRAME}, xr.Dataset.from_dataframe(FRAME))


def test_a_selection_means_the_same_for_every_source(tmp_path):
    select = {"x": ["age", "bmi"], "y": "died", "first": "s[0]"}
    for source in sources(tmp_path):
        found = table(source, select)
        assert list(found.columns) == ["x", "y", "first"]
        assert torch.equal(found.columns["x"], torch.tensor(FRAME[["age", "bmi"]].to_numpy(dtype=np.float64)))
        assert found.columns["y"].tolist() == [0, 1, 0] and found.labels == {"y": ("no", "yes")}
        assert found.columns["first"].tolist() == [1.0, 2.0, 3.0]
        assert found.parts == {"x": ("age", "bmi")}
        again = table({"x": found.columns["x"]}, select, labels=found.labels, again=True)
        assert torch.equal(again.columns["x"], found.columns["x"]) and list(again.columns) == ["x"]


def test_rows_on_disk_are_selected_alike(tmp_path):
    names = {"x": ["age", "bmi"], "s": "s"}
    dataset = xr.Dataset({"age": ("n", FRAME["age"]), "bmi": ("n", FRAME["bmi"]), "s": (("n", "k"), np.ones((3, 2)))})
    dataset["note"] = ("n", ["a", "b", "c"])
    dataset.to_netcdf(tmp_path / "rows.nc", engine="netcdf4")
    rows, held = on_disk(tmp_path / "rows.nc", columns=names), table(dataset, names)
    picked = torch.tensor([2, 0])
    for name, column in held.columns.items():
        assert torch.equal(rows.take(picked)[name], column[picked])
    assert rows.parts == held.parts and list(on_disk(tmp_path / "rows.nc").sample) == ["age", "bmi", "s"]


def test_a_frame_in_a_mapping_is_an_array_column():
    found = table({"x": FRAME[["age", "bmi"]], "y": FRAME["died"]})
    assert found.columns["x"].shape == (3, 2) and found.parts == {"x": ("age", "bmi")}


def test_columns_that_are_not_chosen_are_not_looked_at():
    found = table(FRAME, choose=lambda names: [name for name in names if name != "when"])
    assert list(found.columns) == ["age", "bmi", "died", "s"]
    clash = pd.concat([FRAME, FRAME[["when"]].rename(columns={"when": ""})], axis=1)
    assert list(table(clash, choose=lambda names: ["age"]).columns) == ["age"]


@pytest.mark.parametrize(
    ("select", "words"),
    [
        (["agee"], ["'agee'", "did you mean 'age'"]),
        (["weight"], ["'weight'", "it has"]),
        ({"x": ["age", "Bmi"]}, ["'Bmi'", "'bmi'"]),
        ({"x": ["age", "s"]}, ["'s'", "'x'", "array"]),
        ({"x": ["age", "age"]}, ["'age'", "twice"]),
        (["age", "age"], ["'age'", "twice"]),
        ({"x": []}, ["'x'"]),
        ([], ["empty"]),
        ("age", ["list of names", "'age'"]),
        (3, ["list of names", "3"]),
        ({"x": 3}, ["list of names", "3"]),
    ],
)
def test_selections_that_cannot_be_are_refused_in_one_line(select, words):
    with pytest.raises(ValueError) as caught:
        table(FRAME, select)
    assert "\n" not in str(caught.value)
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_codes_in_an_array_column_keep_their_labels_by_element():
    found = table(FRAME, {"x": ["age", "died"]})
    assert found.columns["x"][:, 1].tolist() == [0.0, 1.0, 0.0] and found.labels == {"x[1]": ("no", "yes")}
    assert to_frame(found.columns, found.labels)["x[1]"].tolist() == FRAME["died"].tolist()


def test_names_resemble_whatever_their_case():
    assert closest("Outcome", ["age", "outcome"]) == "outcome"
    assert closest("outcom", ["OUTCOME"]) == "OUTCOME"
    assert closest("ward", ["age", "bmi"]) is None
