"""Seals: what was written is what is read, and no flipped bit goes unseen."""

import warnings

import netCDF4
import numpy as np
import pytest
import torch
import xarray as xr

import bayesdd
from bayesdd import Distilled
from bayesdd.data.seal import SEAL, check_seal, sealed
from bayesdd.posterior import arviz

SET = Distilled(
    {"x": torch.arange(12.0).reshape(4, 3), "n": torch.arange(4)}, torch.ones(4), provenance={"rows": 9, "name": "a"}
)


def posterior():
    values = {"w": np.arange(24.0).reshape(2, 3, 4), "n": np.arange(6).reshape(2, 3)}
    attrs = {"inference_library": "bayesdd", "seed": 3, "certificate": None, "scale": 0.5}
    return arviz.to_arviz(
        {"posterior": arviz.dataset(values, attrs=attrs), "sample_stats": arviz.dataset({"lp": values["n"] * 1.0})}
    )


def test_round_trips_without_a_word(tmp_path):
    SET.to_netcdf(tmp_path / "d.nc")
    assert torch.equal(Distilled.from_netcdf(tmp_path / "d.nc").data["x"], SET.data["x"])
    arviz.write(posterior(), tmp_path / "p.nc")
    found = arviz.read(tmp_path / "p.nc")
    assert np.array_equal(found.posterior["w"], posterior().posterior["w"])
    arviz.write(found, tmp_path / "q.nc")  # what was read can be written again
    arviz.read(tmp_path / "q.nc")


@pytest.mark.parametrize("name", ["d.nc", "p.nc"])
def test_no_flipped_byte_goes_unseen(name, tmp_path):
    """A damaged file is refused in one line, or its content is what was written."""
    path, broken = tmp_path / name, tmp_path / f"broken_{name}"
    if name == "d.nc":
        SET.to_netcdf(path)
        read = Distilled.from_netcdf
        same = lambda found: found.provenance == SET.provenance and torch.equal(found.data["x"], SET.data["x"])  # noqa: E731
    else:
        arviz.write(posterior(), path)
        read = arviz.read
        same = lambda found: bool((found.posterior["w"] == posterior().posterior["w"]).all())  # noqa: E731
    whole, rng, refused = bytearray(path.read_bytes()), np.random.default_rng(0), 0
    for place in rng.choice(np.flatnonzero(np.frombuffer(path.read_bytes(), np.uint8)), 150):
        damaged = whole.copy()
        damaged[place] ^= 1 << int(rng.integers(8))
        broken.write_bytes(damaged)
        try:
            assert same(read(broken)), place
        except bayesdd.Refusal as error:
            refused += 1
            assert "\n" not in str(error)
    assert refused > 4
    assert same(read(path))


def test_files_of_earlier_versions_warn_once(tmp_path):
    SET.to_netcdf(tmp_path / "d.nc")
    arviz.write(posterior(), tmp_path / "p.nc")
    for name, read in (("d.nc", Distilled.from_netcdf), ("p.nc", arviz.read)):
        with netCDF4.Dataset(tmp_path / name, "a") as file:
            for group in [file, *file.groups.values()]:
                if SEAL in group.ncattrs():
                    group.delncattr(SEAL)
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            read(tmp_path / name)
        assert [str(one.message).count("content hash") for one in said] == [1]


def test_a_seal_knows_names_values_dimensions_and_its_place():
    data = xr.Dataset({"x": ("row", [1.0, np.nan])}, attrs={"a": 1})
    check_seal(sealed(data, "here"), "f", "here")
    for other in (data.rename(x="y"), data.rename(row="r"), data.assign_attrs(a=2), data + 1):
        with pytest.raises(bayesdd.Refusal, match="damaged"):
            check_seal(other.assign_attrs({SEAL: sealed(data).attrs[SEAL]} | {"a": other.attrs.get("a", 1)}), "f")
    with pytest.raises(bayesdd.Refusal, match="damaged"):
        check_seal(sealed(data, "here"), "f", "there")
