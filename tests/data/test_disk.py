"""Rows on disk: the same numbers as in memory, blocks of bounded size, one line for whatever happens to the file."""

import os

import numpy as np
import pytest
import torch
import xarray as xr

import bayesdd
from bayesdd import baselines
from bayesdd.data import disk, formats
from bayesdd.density import passes
from bayesdd.density.density import Density
from bayesdd.task.task import Task
from models import logistic_regression, poisson_regression

N = 3000


def written(path, rows=N, seed=0, **changes):
    """Rows of a logistic regression as a file holds them: float32 covariates, boolean labels."""
    generator = np.random.default_rng(seed)
    x = np.c_[np.ones(rows), generator.normal(size=(rows, 2))].astype(np.float32)
    y = generator.random(rows) < 1 / (1 + np.exp(-x @ [0.3, 1.0, -0.5]))
    columns = {"x": (["row", "term"], x), "y": (["row"], y), "unused": (["row"], np.arange(rows))}
    dataset = xr.Dataset({**columns, **changes})
    dataset.to_zarr(path, consolidated=False) if path.suffix == ".zarr" else dataset.to_netcdf(path)
    return path


@pytest.fixture
def path(tmp_path):
    return written(tmp_path / "rows.nc")


def both(path, **settings):
    """The same task on disk and in memory."""
    rows = disk.on_disk(path, columns=["x", "y"], **settings)
    with formats.opened(path) as dataset:
        held = {name: dataset[name].values for name in ("x", "y")}
    return Task(logistic_regression.model, rows), Task(logistic_regression.model, held)


def draws_of(task, count=5):
    return torch.randn(count, task.dim, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("ending", ["nc", "zarr"])
def test_passes_over_a_file_give_what_memory_gives(tmp_path, monkeypatch, ending):
    if ending == "zarr":
        pytest.importorskip("zarr")
    monkeypatch.setattr(passes, "BLOCK", 100)
    stored, held = both(written(tmp_path / f"rows.{ending}"), memory=4 * 32 * 450)
    assert stored.rows.most == 450 and stored.size == N
    draws = draws_of(held)
    a, b = (Density([(task, task.rows, None)]) for task in (stored, held))
    assert torch.equal(a.sweep(draws), b.sweep(draws))
    for found, expected in zip(
        (*a.log_joint_gradient(draws), *a.likelihood_derivatives(draws[:2])),
        (*b.log_joint_gradient(draws), *b.likelihood_derivatives(draws[:2])),
        strict=True,
    ):
        assert torch.equal(found, expected)
    assert max(len(block["x"]) for block in stored.rows.blocks(0, N, 100, pin=False)) == 100


def test_taking_rows_is_indexing(path):
    rows = disk.on_disk(path, memory=4 * 40 * 300)
    with xr.open_dataset(path) as dataset:
        x, every = torch.tensor(dataset["x"].values).double(), torch.tensor(dataset["unused"].values)
    picked = torch.tensor([2999, 0, 17, 17, 1500, 16])
    found = rows.take(picked)
    assert torch.equal(found["x"], x[picked]) and torch.equal(found["unused"], every[picked])
    assert found["unused"].dtype == torch.int64


def test_a_distilled_file_is_the_distilled_memory(tmp_path):
    stored, held = both(written(tmp_path / "rows.nc", 200))
    a, b = (bayesdd.distill(task, 4, seed=0, progress=False) for task in (stored, held))
    assert torch.equal(a.weight, b.weight) and torch.equal(a.data["x"], b.data["x"])
    assert a.certificate.kl_reverse == b.certificate.kl_reverse


def test_a_sample_stands_for_kinds_and_starts_only(tmp_path, monkeypatch):
    monkeypatch.setattr(disk, "SAMPLE_ROWS", 300)
    stored, held = both(written(tmp_path / "rows.nc", 4000))
    assert stored.size == 4000 and len(stored.data["x"]) <= 300
    assert {0, 3999} <= set(stored.rows.numbers.tolist())
    assert torch.equal(stored.data["x"], held.data["x"][stored.rows.numbers])
    distilled = bayesdd.distill(stored, 6, seed=0, progress=False)
    assert distilled.certificate.ok
    assert bayesdd.certify(held, distilled, seed=5, tolerance=0.05).ok
    assert distilled.provenance["rows"] == 4000
    with pytest.raises(ValueError, match=r"task\.rows"):
        Density([(stored, stored.data, None)])
    with pytest.raises(ValueError, match="baselines need all rows in memory"):
        baselines.uniform(stored, 5, seed=0)


def test_spans_are_seen_once_however_they_are_cut(path):
    rows = disk.on_disk(path)
    asked = [(0, 100), (0, 50), (200, 300), (100, 150), (120, 210), (0, 300), (250, 400), (50, 400)]
    assert [rows.unseen(*span) for span in asked] == [True, False, True, True, True, False, True, False]
    assert rows.known.seen == {(0, 400)}


def test_rows_that_nobody_looked_at_are_checked_when_swept(tmp_path, monkeypatch):
    monkeypatch.setattr(disk, "SAMPLE_ROWS", 10)
    counts = np.ones(N)
    counts[1234] = -1.0
    rows = disk.on_disk(written(tmp_path / "a.nc", y=(["row"], counts)), columns=["x", "y"])
    task = Task(poisson_regression.model, rows)
    with pytest.raises(ValueError, match=r"-1\.0 in row 1234, outside the support"):
        bayesdd.distill(task, 4, progress=False)
    x = np.ones((N, 3))
    x[2000, 1] = np.nan
    rows = disk.on_disk(written(tmp_path / "b.nc", x=(["row", "term"], x)), columns=["x", "y"])
    with pytest.raises(ValueError, match="row 2000 is not finite, with column 'x' missing"):
        bayesdd.distill(Task(logistic_regression.model, rows), 4, progress=False)
    x[2000, 1] = np.inf
    with pytest.raises(ValueError, match=r"c\.nc: column 'x' is infinite, or does not fit float64, in row 2000"):
        disk.on_disk(written(tmp_path / "c.nc", x=(["row", "term"], x)), columns=["x", "y"])


def test_a_file_that_changes_or_goes_is_named(path):
    task, _ = both(path, memory=4 * 32 * 1000)
    density, draws = Density([(task, task.rows, None)]), draws_of(task, 2)
    blocks = task.rows.blocks(0, N, 1000, pin=False)
    next(blocks)
    os.utime(path, (1, 1))
    with pytest.raises(OSError, match=r"rows\.nc was changed while its rows were needed"):
        list(blocks)
    with pytest.raises(OSError, match="was changed"):
        density.sweep(draws)
    path.unlink()
    with pytest.raises(FileNotFoundError, match="was removed"):
        density.sweep(draws)


def test_a_zarr_chunk_that_goes_is_named(tmp_path):
    pytest.importorskip("zarr")
    path = written(tmp_path / "rows.zarr")
    rows = disk.on_disk(path, columns=["x", "y"])
    next(file for file in (path / "x" / "c").rglob("*") if file.is_file()).unlink()
    with pytest.raises(OSError, match="was changed"):
        rows.take(torch.tensor([0]))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: disk.on_disk(p.with_name("no.nc")), "no such file"),
        (lambda p: disk.on_disk(p.with_name("rows.csv")), "not in '.csv'"),
        (lambda p: disk.on_disk(p, columns=["x", "z"]), "columns= names 'z', which is not there"),
        (lambda p: disk.on_disk(p, columns=[]), "columns= is empty"),
        (lambda p: Task(logistic_regression.model, disk.on_disk(p, columns={"x": "x", "yy": "y"})), "did you mean"),
        (lambda p: disk.on_disk(written(p, u=(["row"], np.full(N, "a"))), columns=["u"]), "'u' holds text"),
        (lambda p: disk.on_disk(written(p, u=(["row"], np.full(N, 2**64 - 1, np.uint64)))), "does not fit a 64-bit"),
        (lambda p: disk.on_disk(written(p, u=(["row"], np.full(N, np.nan)))), "'u' has every value missing"),
        (lambda p: disk.on_disk(written(p, u=(["other"], np.ones(7)))), "differ in their number of rows"),
    ],
)
def test_one_line_says_what_is_wrong(path, make, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message) as caught:
        make(path)
    assert "\n" not in str(caught.value)


def test_a_path_stays_on_disk_above_a_size(path, monkeypatch):
    with xr.open_dataset(path) as dataset:
        dataset[["x", "y"]].load().to_netcdf(path.with_name("two.nc"))
    path = path.with_name("two.nc")
    assert len(Task(logistic_regression.model, path).rows.columns["x"]) == N
    monkeypatch.setattr("bayesdd.data.rows.IN_MEMORY", 1000)
    task = Task(logistic_regression.model, path)
    assert task.rows.medium.path == path
    idata = bayesdd.sample(task, draws=10, chains=2, seed=0, method=bayesdd.inference.laplace)
    assert idata.posterior["w"].shape == (2, 10, 3)
