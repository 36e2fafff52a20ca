"""Hostile files: one line within a second and 100 MB, whatever they claim, and nothing in them is run."""

import json
import pickle
import resource
import time
import zipfile
from contextlib import contextmanager

import netCDF4
import numpy as np
import pytest
import xarray as xr

import bayesdd
from bayesdd.data import formats, headers
from bayesdd.data.columns import read
from bayesdd.data.disk import on_disk
from bayesdd.data.distilled import FORMAT, Distilled
from bayesdd.data.rows import opened
from bayesdd.density.checkpoint import MARK, Checkpoint
from bayesdd.numerics.refusal import Refusal
from bayesdd.posterior import arviz
from models import gaussian_mean

DEEP = "[" * 100_000 + "]" * 100_000
DAMAGED_SETS = {
    "format of text": {"bayesdd_format": "one"},
    "format of several numbers": {"bayesdd_format": [1, 1]},
    "no attributes": {"bayesdd_format": FORMAT},
    "deep JSON": {"bayesdd_format": FORMAT, "weight": "w", "soft": "{}", "provenance": DEEP},
    "deep certificate": {
        "bayesdd_format": FORMAT,
        "weight": "w",
        "soft": "{}",
        "provenance": "{}",
        "certificate": DEEP,
    },
    "provenance of numbers": {"bayesdd_format": FORMAT, "weight": "w", "soft": "{}", "provenance": [1.0, 2.0]},
    "provenance no mapping": {"bayesdd_format": FORMAT, "weight": "w", "soft": "{}", "provenance": "[1]"},
    "soft of text": {"bayesdd_format": FORMAT, "weight": "w", "soft": '{"x": "many"}', "provenance": "{}"},
    "labels of numbers": {
        "bayesdd_format": FORMAT,
        "weight": "w",
        "soft": "{}",
        "provenance": "{}",
        "labels": '{"x": 3}',
    },
    "certificate no mapping": {
        "bayesdd_format": FORMAT,
        "weight": "w",
        "soft": "{}",
        "provenance": "{}",
        "certificate": 2.0,
    },
}


@contextmanager
def within_a_second_and_100_mb():
    def peak():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

    before, begin = peak(), time.process_time()
    with pytest.raises((Refusal, OSError)) as caught:
        yield caught
    assert time.process_time() - begin < 1 and peak() - before < 100e6
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 2000, str(caught.value)


def peta(path, name="x", chunk=(1, 1000)):
    with netCDF4.Dataset(path, "w") as file:
        for dim in ("row", "other"):
            file.createDimension(dim, 2**25)
        file.createVariable(name, "f8", ("row", "other") if name == "x" else (name,), chunksizes=chunk, zlib=True)
        group = file.createGroup("posterior")
        group.createDimension("draw", 2**40)
        group.createVariable("w", "f8", ("draw",), chunksizes=(100,))
    return path


def zarr_array(path, **changes):
    array = {
        "zarr_format": 2, "shape": [3], "chunks": [3], "dtype": "<f8", "compressor": None, "fill_value": 0.0,
        "order": "C", "filters": None,
    }  # fmt: skip
    (path / "x").mkdir(parents=True)
    (path / ".zgroup").write_text('{"zarr_format": 2}')
    (path / "x" / ".zattrs").write_text('{"_ARRAY_DIMENSIONS": ["row"]}')
    (path / "x" / ".zarray").write_text(json.dumps(array | changes))
    (path / "x" / "0").write_bytes(np.arange(3.0).tobytes())
    return path


@pytest.mark.parametrize("reader", [read, on_disk, Distilled.from_netcdf, arviz.read])
def test_a_netcdf_file_that_claims_more_than_it_holds(tmp_path, reader):
    for name, chunk in [("x", (1, 1000)), ("row", (1000,)), ("x", (2**13, 2**15))]:
        with within_a_second_and_100_mb() as caught:
            reader(peta(tmp_path / "rows.nc", name, chunk))
        assert "claims to hold" in str(caught.value)


@pytest.mark.parametrize("attrs", DAMAGED_SETS.values(), ids=DAMAGED_SETS)
def test_attributes_of_wrong_types(tmp_path, attrs):
    xr.Dataset({"x": ("row", np.ones(3)), "w": ("row", np.ones(3))}, attrs=attrs).to_netcdf(tmp_path / "d.nc")
    with within_a_second_and_100_mb():
        Distilled.from_netcdf(tmp_path / "d.nc")


def test_groups_of_wrong_types(tmp_path):
    with netCDF4.Dataset(tmp_path / "p.nc", "w") as file:
        group = file.createGroup("posterior")
        group.inference_library = np.arange(3)
        group.content_sha256 = np.arange(2)
        group.createDimension("chain", 2)
        group.createVariable("w", "f8", ("chain",))[:] = 1.0
    with within_a_second_and_100_mb():
        arviz.read(tmp_path / "p.nc")


def test_archives_that_unpack_to_more_than_they_hold(tmp_path):
    bomb = zipfile.ZipFile(tmp_path / "bomb.npz", "w", zipfile.ZIP_DEFLATED)
    with bomb, bomb.open("x.npy", "w") as member:
        for _ in range(20):
            member.write(bytes(2**24))
    with within_a_second_and_100_mb() as caught:
        read(tmp_path / "bomb.npz")
    assert "claims to hold" in str(caught.value)
    header = np.lib.format.magic(1, 0)
    text = b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000000,), }\n"
    with zipfile.ZipFile(tmp_path / "peta.npz", "w") as archive:
        archive.writestr("x.npy", header + len(text).to_bytes(2, "little") + text)
    with within_a_second_and_100_mb():
        read(tmp_path / "peta.npz")
    np.savez(tmp_path / "objects.npz", x=np.array([{}], dtype=object))
    with within_a_second_and_100_mb():
        read(tmp_path / "objects.npz")


@pytest.mark.parametrize(
    "text",
    [
        "x[99999999999],y\n1,2\n",
        "x[999999],x[0],y\n1,2,3\n",
        f"x[{','.join(['1'] * 100)}],y\n1,2\n",
        "x[999999,999999,999999,999999],x[0,0,0,0],y\n1,2,3\n",
        f"x[{'9' * 5000}],y\n1,2\n",
        f'y\n"{"a" * 200_000}"\n',
        "y\n\x00\n1\n",
        "",
    ],
    ids=["large", "gap", "axes", "gaps", "digits", "cell", "nul", "empty"],
)
def test_tables_of_text(tmp_path, text):
    (tmp_path / "rows.csv").write_text(text)
    with within_a_second_and_100_mb():
        read(tmp_path / "rows.csv")


def test_a_codec_that_runs_code_is_refused_before_a_chunk_is_read(tmp_path):
    pytest.importorskip("zarr")

    class Payload:
        def __reduce__(self):
            return open, (str(tmp_path / "run"), "w")

    path = zarr_array(tmp_path / "a.zarr", dtype="|O", filters=[{"id": "pickle", "protocol": 5}], fill_value=None)
    (path / "x" / "0").write_bytes(pickle.dumps(Payload()))
    for reader in (on_disk, lambda p: bayesdd.Task(gaussian_mean.model, p)):
        with within_a_second_and_100_mb() as caught:
            reader(path)
        assert "array 'x' holds '|O'" in str(caught.value)
    assert not (tmp_path / "run").exists()
    for at, kind in enumerate(["<c16", "<M8[ns]", [["a", "<f8"]], "|V8", "|O"]):
        with within_a_second_and_100_mb() as caught:
            on_disk(zarr_array(tmp_path / f"{at}.zarr", dtype=kind))
        assert "not numbers" in str(caught.value)


def test_numbers_and_text_in_either_version_of_zarr_are_read(tmp_path):
    pytest.importorskip("zarr")
    for version, names in ((2, ["a", "b"]), (3, [1, 2])):  # version 3 has no text of a fixed length yet
        rows = xr.Dataset({"x": (("row", "term"), np.ones((5, 2))), "y": ("row", np.arange(5))}, {"term": names})
        rows.to_zarr(tmp_path / f"{version}.zarr", zarr_format=version, consolidated=False)
        headers.check_zarr(tmp_path / f"{version}.zarr")
        with formats.opened(tmp_path / f"{version}.zarr") as found:
            assert found["x"].dims == ("row", "term") and found["term"].values.tolist() == names


@pytest.mark.parametrize(
    "changes",
    [{"shape": [10**15]}, {"chunks": [10**15]}, {"shape": "many"}, {"filters": 3}, {"dtype": None}, {"chunks": [-3]}],
)
def test_zarr_metadata_that_claim_or_say_nonsense(tmp_path, changes):
    pytest.importorskip("zarr")
    with within_a_second_and_100_mb():
        on_disk(zarr_array(tmp_path / "a.zarr", **changes))


def test_zarr_metadata_that_are_deep_or_no_mapping(tmp_path):
    pytest.importorskip("zarr")
    for at, text in enumerate([DEEP, "[1]", "", '{"zarr_format": 99}']):
        path = zarr_array(tmp_path / f"{at}.zarr")
        (path / "x" / ".zarray").write_text(text)
        with within_a_second_and_100_mb():
            on_disk(path)


def test_checkpoints(tmp_path):
    task = gaussian_mean.task(rows=20)
    with (tmp_path / "large").open("wb") as file:
        file.truncate(2**40)  # a sparse file of a tebibyte
    with within_a_second_and_100_mb():
        Checkpoint(tmp_path / "large", [task])
    identity = Checkpoint(tmp_path / "none", [task]).identity
    passes = {"a": {"shapes": [[10**15]], "sha256": ""}}, {"a": {"shapes": [[-1]], "sha256": ""}}, {"a": 3}, 7
    heads = [DEEP, *(json.dumps({"identity": identity, "passes": one}) for one in passes)]
    for head in heads:
        (tmp_path / "c").write_bytes(MARK + head.encode() + b"\n")
        with pytest.warns(UserWarning, match=r"^\S*c cannot be resumed: it is damaged [^\n]*$"):
            Checkpoint(tmp_path / "c", [task])


def test_what_compresses_well_is_still_read(tmp_path):
    """Sixty times smaller on disk than in memory: a column of ones, and one of few levels."""
    rows = {"x": np.ones((200_000, 3)), "y": np.tile(np.repeat([0.0, 1.0], 100), 1000)}
    np.savez_compressed(tmp_path / "rows.npz", **rows)
    xr.Dataset({"x": (("row", "c"), rows["x"]), "y": ("row", rows["y"])}).to_netcdf(
        tmp_path / "rows.nc", encoding={name: {"zlib": True} for name in rows}
    )
    for name in ("rows.npz", "rows.nc"):
        assert (read(tmp_path / name)["x"].numpy() == 1).all()


def test_a_damaged_chunk_is_refused_in_one_line(tmp_path):
    pytest.importorskip("zarr")
    path = tmp_path / "a.zarr"
    xr.Dataset({"x": ("row", np.arange(100.0))}).to_zarr(path, consolidated=False, zarr_format=3)
    (chunk,) = (file for file in (path / "x" / "c").rglob("*") if file.is_file())
    chunk.write_bytes(chunk.read_bytes()[:-9])
    with pytest.raises(Refusal, match="column 'x' cannot be read; is the file damaged") as said:
        opened(path)
    assert "\n" not in str(said.value)
