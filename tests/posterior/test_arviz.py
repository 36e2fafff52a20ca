"""Posteriors: groups survive ArviZ and the disk; draws come back in order.

Runs under ArviZ 0.23 and 1.x.
"""

import os
import warnings

import numpy as np
import pytest
import torch
import xarray as xr

from bayesdd.posterior import arviz

VALUES = {
    "w": np.random.default_rng(0).normal(size=(2, 5, 3, 2)),
    "tau": np.random.default_rng(1).normal(size=(2, 5)),
}
SITES = {"w": (3, 2), "tau": ()}


def groups():
    sample = arviz.dataset(VALUES, dims={"w": ["school", "term"]}, attrs={"seed": 3, "versions": {"a": "1"}})
    rows = arviz.dataset({"y": np.arange(4), "x": np.ones((4, 2))}, lead=("row",))
    return {"posterior": sample, "observed_data": rows}


def as_dataset(group):
    """A group of either generation, without its attributes (0.23 adds a date to them)."""
    return (group.to_dataset() if isinstance(group, xr.DataTree) else group).drop_attrs()


def test_dataset_names_dimensions_like_arviz():
    dataset = arviz.dataset(VALUES, attrs={"none": None, "flag": True, "size": 5, "name": "m:f"})
    assert dataset["w"].dims == ("chain", "draw", "w_dim_0", "w_dim_1") and dataset["tau"].dims == ("chain", "draw")
    assert dataset["w_dim_0"].values.tolist() == [0, 1, 2] and dataset["draw"].values.tolist() == [0, 1, 2, 3, 4]
    assert dataset.attrs == {"none": "null", "flag": "true", "size": 5, "name": "m:f"}
    assert groups()["observed_data"]["x"].dims == ("row", "x_dim_0")


@pytest.mark.parametrize(
    ("values", "dims", "words"),
    [
        ({"w": np.ones(3)}, {}, ["'w'", "(3,)"]),
        ({"w": np.ones((2, 5, 3))}, {"w": ["a", "b"]}, ["'w'", "(2, 5, 3)"]),
        ({"w": np.ones((2, 5)), "v": np.ones((2, 6))}, {}, ["'v'", "'draw'", "6", "5"]),
        ({"draw": np.ones((2, 5))}, {}, ["'draw'", "rename"]),
    ],
)
def test_dataset_refuses_what_does_not_fit(values, dims, words):
    with pytest.raises(ValueError) as caught:
        arviz.dataset(values, dims=dims)
    assert all(word in str(caught.value) for word in words), caught.value


def test_arviz_takes_the_groups():
    import arviz as az

    idata = arviz.to_arviz(groups())
    assert isinstance(idata, vars(az).get("InferenceData", xr.DataTree))
    np.testing.assert_array_equal(idata.posterior["w"].values, VALUES["w"])
    assert float(az.rhat(as_dataset(idata.posterior))["tau"]) > 0


def test_file_round_trip(tmp_path):
    path = tmp_path / "p.nc"
    for _ in range(2):  # the second time over the first
        arviz.write(arviz.to_arviz(groups()), path)
    idata = arviz.read(str(path))
    assert type(idata) is type(arviz.to_arviz(groups())) and os.listdir(tmp_path) == ["p.nc"]
    for name, group in groups().items():
        xr.testing.assert_identical(as_dataset(getattr(idata, name)), group.drop_attrs())
    assert idata.posterior.attrs["seed"] == 3 and idata.posterior.attrs["versions"] == '{"a": "1"}'
    path.unlink()
    assert float(idata.posterior["tau"].sum()) == VALUES["tau"].sum()


def test_draws_come_back_chain_by_chain():
    idata = arviz.to_arviz({"posterior": groups()["posterior"].transpose(..., "chain")})
    draws = arviz.draws_from(idata, SITES)
    assert list(draws) == list(SITES)
    np.testing.assert_array_equal(draws["w"], VALUES["w"].reshape(10, 3, 2))
    np.testing.assert_array_equal(draws["tau"], VALUES["tau"].reshape(10))


def test_tensors_go_in_and_come_out():
    value = torch.ones(2, 5, 3, requires_grad=True)
    idata = arviz.to_arviz({"posterior": arviz.dataset({"a": value})})
    draws = arviz.draws_from(idata, {"a": (3,)})["a"]
    assert draws.dtype == torch.float64 and torch.equal(draws, torch.ones(10, 3, dtype=torch.float64))


@pytest.mark.parametrize(
    ("sites", "words"),
    [
        ({"v": ()}, ["'v'", "'tau'"]),
        ({"w": (2, 3)}, ["'w'", "(3, 2)", "(2, 3)"]),
        ({"tau": (1,)}, ["'tau'", "()", "(1,)"]),
    ],
)
def test_draws_of_another_model(sites, words):
    with pytest.raises(ValueError) as caught:
        arviz.draws_from(arviz.to_arviz(groups()), sites)
    assert "\n" not in str(caught.value) and all(word in str(caught.value) for word in words), caught.value
    with pytest.raises(ValueError, match="no group 'posterior'"):
        arviz.draws_from(arviz.to_arviz({"observed_data": groups()["observed_data"]}), sites)


def test_files_that_hold_no_posterior(tmp_path):
    path = tmp_path / "p.nc"
    with pytest.raises(FileNotFoundError, match=r"^\S*p\.nc: no such file$"):
        arviz.read(path)
    arviz.write(arviz.to_arviz(groups()), path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"^\S*p\.nc cannot be read.*$"):
        arviz.read(path)
    xr.Dataset({"x": ("row", [1.0])}).to_netcdf(path, engine="netcdf4")
    with pytest.raises(ValueError, match="no groups"):
        arviz.read(path)
    with pytest.raises(FileNotFoundError, match="does not exist"):
        arviz.write(arviz.to_arviz(groups()), tmp_path / "absent" / "p.nc")


def test_a_failed_write_leaves_the_earlier_file(tmp_path, monkeypatch):
    class Broken:
        def to_netcdf(self, path, engine):
            with open(path, "w") as handle:
                handle.write("half")
            raise RuntimeError("NetCDF: HDF error")

    path = tmp_path / "p.nc"
    arviz.write(arviz.to_arviz(groups()), path)
    with (
        monkeypatch.context() as patch,
        pytest.raises(OSError, match=r"^cannot write \S*p\.nc: NetCDF: HDF error[^\n]*unchanged$"),
    ):
        idata = arviz.to_arviz(groups())
        patch.setattr(arviz, "to_arviz", lambda _: Broken())
        arviz.write(idata, path)
    assert arviz.read(path).posterior["w"].shape == (2, 5, 3, 2) and os.listdir(tmp_path) == ["p.nc"]


def test_importing_arviz_warns_nobody():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        arviz._inference_data()


@pytest.mark.parametrize("newer", [False, True])
def test_a_group_is_added_to_a_copy_in_either_generation(newer, monkeypatch):
    if newer:
        monkeypatch.setattr(arviz, "_inference_data", lambda: None)
    idata = arviz.to_arviz(groups())
    more = arviz.dataset({"y": np.zeros((2, 5, 4))}, dims={"y": ["row"]})
    for value in (0.0, 1.0):
        idata_with = arviz.with_group(idata, "log_likelihood", arviz.labelled(more + value, idata.posterior))
        assert float(idata_with.log_likelihood["y"].max()) == value
        np.testing.assert_array_equal(idata_with.posterior["w"], VALUES["w"])
        assert not hasattr(idata, "log_likelihood")
    again = arviz.with_group(idata_with, "log_likelihood", more)
    assert float(again.log_likelihood["y"].max()) == 0.0 and float(idata_with.log_likelihood["y"].max()) == 1.0
    draws = arviz.draws_from(again, SITES)
    np.testing.assert_array_equal(draws["tau"], VALUES["tau"].reshape(10))
