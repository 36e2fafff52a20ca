"""Distilled: the file and the table hold the same log-likelihood; nothing is lost by a failure to write."""

import dataclasses
import json
import math
import os

import pytest
import torch
import xarray as xr

from bayesdd.data.certificate import Certificate
from bayesdd.data.columns import read
from bayesdd.data.distilled import FORMAT, Distilled, union


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def plain(**changes):
    data = {"x": random(5, 2, 3), "y": torch.arange(5)}
    provenance = {"task": "m:f", "model_hash": "a", "sites": {"w": [6]}, "rows": 1000, "versions": {"torch": "2"}}
    return dataclasses.replace(Distilled(data, random(5, seed=1).exp(), provenance=provenance), **changes)


def soft(rows=4, seed=0):
    """Two soft columns and one plain; one class of row 0 has probability zero."""
    q = torch.softmax(random(rows, 3, seed=seed), 1)
    q[0] = torch.tensor([0.5, 0.0, 0.5])
    r = torch.softmax(random(rows, 2, seed=seed + 1), 1)
    weight = random(rows, seed=seed + 2).exp()
    return Distilled({"x": random(rows, 2, seed=seed + 3), "y": q, "z": r}, weight, soft={"y": 3, "z": 2})


def log_likelihood(data, weight):
    """Any function that is additive over rows; classes enter by lookup."""
    table = random(3, 2, seed=9)
    return (weight * (data["x"].sum(1) * table[data["y"], data["z"]])).sum()


def same(a, b):
    return (
        list(a.data) == list(b.data)
        and all(torch.equal(a.data[k], b.data[k]) and a.data[k].dtype == b.data[k].dtype for k in a.data)
        and torch.equal(a.weight, b.weight)
        and (a.soft, a.provenance) == (b.soft, b.provenance)
    )


def test_hard_rows_have_the_same_log_likelihood():
    distilled = soft()
    table = random(3, 2, seed=9)
    q, r, x = distilled.data["y"], distilled.data["z"], distilled.data["x"].sum(1)
    expected = (distilled.weight * x * torch.einsum("mk,ml,kl->m", q, r, table)).sum()
    data, weight = distilled.hard()
    torch.testing.assert_close(log_likelihood(data, weight), expected)
    torch.testing.assert_close(weight.sum(), distilled.weight.sum())
    assert len(weight) == 4 * 3 * 2 - 2 and (weight > 0).all()
    assert data["y"].dtype == data["z"].dtype == torch.int64 and list(data) == ["x", "y", "z"]


def test_hard_rows_of_hard_columns_are_the_rows():
    distilled = plain()
    data, weight = distilled.hard()
    assert same(distilled, dataclasses.replace(distilled, data=data, weight=weight))


def test_frame_is_the_hard_rows_with_the_weight_last(tmp_path):
    distilled = soft()
    distilled.to_frame().to_csv(tmp_path / "d.csv", index=False)
    table = read(tmp_path / "d.csv")
    data, weight = distilled.hard()
    assert list(table) == ["x", "y", "z", "weight"]
    assert all(torch.equal(table[name], value) for name, value in {**data, "weight": weight}.items())


@pytest.mark.parametrize("make", [plain, soft])
def test_file_round_trip_is_exact_and_its_bytes_repeat(make, tmp_path):
    distilled = make()
    distilled.to_netcdf(tmp_path / "a.nc")
    make().to_netcdf(str(tmp_path / "b.nc"))
    assert same(Distilled.from_netcdf(tmp_path / "a.nc"), distilled)
    assert (tmp_path / "a.nc").read_bytes() == (tmp_path / "b.nc").read_bytes()
    assert sorted(os.listdir(tmp_path)) == ["a.nc", "b.nc"]


def test_names_that_the_file_uses_itself(tmp_path):
    names = ["weight", "row", "weight_dim_0", "row_dim_0", "x_dim_0", "x"]
    distilled = Distilled({name: random(3, 2, seed=i) for i, name in enumerate(names)}, torch.ones(3))
    distilled = dataclasses.replace(distilled, data={**distilled.data, "x_dim_0": random(3)})
    distilled.to_netcdf(tmp_path / "d.nc")
    assert same(Distilled.from_netcdf(tmp_path / "d.nc"), distilled)
    assert list(distilled.to_frame())[-1] == "distilled_weight"
    with xr.open_dataset(tmp_path / "d.nc", engine="netcdf4") as dataset:
        assert "distilled_weight" in dataset


def test_certificate_survives_the_file(tmp_path):
    fields = {
        "kl_reverse": 0.01, "kl_forward": float("nan"), "half_variance": 0.01,
        "khat": float("inf"), "ess": 900.0, "sweeps": 12.0,
    }  # fmt: skip
    fields |= {f"{name}_se": 0.1 for name in fields} | {"tolerance": float("inf")}
    fields |= {"gradients": 40.0, "draws": 2000}
    certificate = Certificate(**fields, better_mode=False, corrected=None)
    distilled = plain(certificate=certificate)
    distilled.to_netcdf(tmp_path / "d.nc")
    back = Distilled.from_netcdf(tmp_path / "d.nc").certificate
    assert back.to_dict() == certificate.to_dict() and str(back) == str(certificate)


def test_tensors_are_brought_home():
    weight = torch.ones(2, dtype=torch.float32, requires_grad=True)
    distilled = Distilled({"x": weight * 2, "y": torch.tensor([True, False])}, weight)
    assert distilled.data["x"].dtype == distilled.weight.dtype == torch.float64
    assert distilled.data["y"].dtype == torch.int64
    assert not distilled.weight.requires_grad and not distilled.data["x"].requires_grad


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"weight": torch.ones(4)}, ["'x'", "4 weights"]),
        ({"weight": torch.ones(5, 1)}, ["(5, 1)"]),
        ({"weight": torch.tensor([1.0, 1, 0, 1, 1])}, ["positive"]),
        ({"weight": torch.tensor([1.0, 1, float("nan"), 1, 1])}, ["positive and finite"]),
        ({"data": {}}, ["columns"]),
        ({"soft": {"x": 3}}, ["'x'", "3 class"]),
        ({"soft": {"z": 3}}, ["'z'"]),
        ({"data": {"q": torch.full((5, 2), 0.6)}, "soft": {"q": 2}}, ["'q'", "sum to one"]),
    ],
)
def test_parts_that_do_not_fit(changes, words):
    with pytest.raises(ValueError) as caught:
        plain(**changes)
    assert "\n" not in str(caught.value) and all(word in str(caught.value) for word in words)


def test_union_adds_log_likelihoods():
    a, b = soft(), soft(rows=2, seed=20)
    both = union([a, b])
    torch.testing.assert_close(log_likelihood(*both.hard()), log_likelihood(*a.hard()) + log_likelihood(*b.hard()))
    assert len(both) == 6 and both.soft == a.soft and both.certificate is None


def test_union_keeps_what_the_parts_agree_on(tmp_path):
    a = plain()
    b = plain(provenance={**a.provenance, "rows": 500, "seed": 3})
    both = union([a, b])
    assert both.provenance["rows"] == 1500 and both.provenance["size"] == 10 and "seed" not in both.provenance
    assert both.provenance["sites"] == {"w": [6]} and both.provenance["parts"] == [a.provenance, b.provenance]
    both.to_netcdf(tmp_path / "d.nc")
    assert same(Distilled.from_netcdf(tmp_path / "d.nc"), both)


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (plain(data={"x": random(5, 2, 3)}), ["part 1", "'y'", "absent"]),
        (plain(data={"x": random(5, 3), "y": torch.arange(5)}), ["'x'", "(3,)", "(2, 3)"]),
        (plain(data={"x": random(5, 2, 3), "y": random(5)}), ["'y'", "real", "integer"]),
        (plain(data={"x": random(5, 2, 3), "y": torch.arange(5), "z": random(5)}), ["'z'", "absent"]),
    ],
)
def test_union_refuses_other_columns(other, words):
    with pytest.raises(ValueError) as caught:
        union([plain(), other])
    assert all(word in str(caught.value) for word in words), caught.value
    with pytest.raises(ValueError, match="at least one"):
        union([])


def test_repr_is_one_short_line():
    assert len(repr(plain())) < 120 and "5 rows for 1,000" in repr(plain()) and "no certificate" in repr(plain())


def test_files_that_hold_no_distilled_set(tmp_path):
    path = tmp_path / "d.nc"
    with pytest.raises(FileNotFoundError, match=r"^\S*d\.nc: no such file$"):
        Distilled.from_netcdf(path)
    plain().to_netcdf(path)
    whole = path.read_bytes()
    for size in (0, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(ValueError, match=r"^\S*d\.nc cannot be read.*$"):
            Distilled.from_netcdf(path)
    xr.Dataset({"x": ("row", [1.0])}).to_netcdf(path, engine="netcdf4")
    with pytest.raises(ValueError, match=r"^\S*d\.nc holds no distilled set.*$"):
        Distilled.from_netcdf(path)
    xr.Dataset(attrs={"bayesdd_format": FORMAT + 1}).to_netcdf(path, engine="netcdf4")
    with pytest.raises(ValueError, match=rf"^\S*d\.nc has format {FORMAT + 1}.*upgrade.*$"):
        Distilled.from_netcdf(path)
    xr.Dataset(attrs={"bayesdd_format": FORMAT, "weight": "weight"}).to_netcdf(path, engine="netcdf4")
    with pytest.raises(ValueError, match=r"^\S*d\.nc cannot be read as a distilled set.*$"):
        Distilled.from_netcdf(path)


def test_provenance_that_json_cannot_hold_is_refused_and_leaves_no_file(tmp_path):
    with pytest.raises(TypeError):
        plain(provenance={"task": object()}).to_netcdf(tmp_path / "d.nc")
    assert os.listdir(tmp_path) == []


def test_labels_survive_tables_files_and_unions(tmp_path):
    x = random(3, 2)
    made = Distilled({"g": ["b", "a", "b"], "y": [0.3, 1.0, 0.0], "x": x}, torch.ones(3), labels={"y": ("no", "yes")})
    made.to_netcdf(tmp_path / "d.nc")
    for found in (made, Distilled.from_netcdf(tmp_path / "d.nc"), union([made])):
        frame = found.to_frame()
        assert frame["g"].tolist() == ["b", "a", "b"] and frame["y"].tolist() == [0.3, 1.0, 0.0]
        assert list(frame) == ["g", "y", "x[0]", "x[1]", "weight"]
        back = Distilled(frame.drop(columns="weight"), frame["weight"])
        assert torch.equal(back.data["g"], made.data["g"]) and torch.equal(back.data["x"], x)
    whole = Distilled({"y": torch.tensor([1.0, 0.0, math.nan])}, torch.ones(3), labels={"y": ("no", "yes")})
    assert whole.to_frame()["y"].tolist()[:2] == ["yes", "no"] and whole.to_frame()["y"].isna()[2]
    with pytest.raises(ValueError, match=r"part 1: column 'g' has the labels .*'b', 'c'.*'a', 'b'"):
        union([made, Distilled({"g": ["b", "c"], "y": [0.1, 0.2], "x": x[:2]}, [1, 1], labels={"y": ("no", "yes")})])


def test_provenance_is_readable_by_anybody(tmp_path):
    plain().to_netcdf(tmp_path / "d.nc")
    with xr.open_dataset(tmp_path / "d.nc", engine="netcdf4") as dataset:
        assert json.loads(dataset.attrs["provenance"])["rows"] == 1000
        assert dataset["x"].dims[0] == dataset["weight"].dims[0] == "row"
