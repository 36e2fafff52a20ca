"""Rows on a cluster of two processes: the sums of one process, also when a worker dies; one line for what cannot be."""

import os
import signal
from contextlib import contextmanager

import numpy as np
import pandas as pd
import pytest
import torch

import bayesdd
from bayesdd.data import disk, partitions
from bayesdd.data.partitions import Partitions
from bayesdd.data.rows import opened
from bayesdd.density.density import Density
from bayesdd.task.task import Task
from models import logistic_regression

dask = pytest.importorskip("dask")
dd = pytest.importorskip("dask.dataframe")
distributed = pytest.importorskip("distributed")
N = 3000


pytestmark = [pytest.mark.long, pytest.mark.xdist_group("dask")]  # workers are processes


@contextmanager
def one_line(message):
    with pytest.raises((ValueError, OSError), match=message) as caught:
        yield
    assert "\n" not in str(caught.value)


def test_a_cluster_comes_first():
    with one_line("there is no client"):
        opened(split(frame()), ["y"])


@pytest.fixture(scope="module")
def client():
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0", memory_limit=0
        ) as cluster,
        distributed.Client(cluster) as found,
    ):
        yield found
    dask.config.config.pop("scheduler", None)  # the client leaves its name there, which xarray then asks for locks


def frame(rows=N):
    rng = np.random.default_rng(0)
    x = rng.normal(size=rows)
    return pd.DataFrame(
        {
            "x[0]": 1,
            "x[1]": x,
            "y": rng.random(rows) < 1 / (1 + np.exp(-x)),
            "ward": rng.choice(["west", "east"], rows),
            "count": rng.integers(1, 9, rows),
        }
    )


def split(given, parts=4):
    return dd.from_pandas(given, npartitions=parts, sort=False)


def draws_of(task, count=5):
    return torch.randn(count, task.dim, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def test_passes_are_those_of_one_process(client, same_passes, monkeypatch):
    monkeypatch.setattr(disk, "SAMPLE_ROWS", 200)
    columns = {"columns": ["x", "y"]}
    for settings in (columns, columns | {"weight": "count"}):
        away = Task(logistic_regression.model, split(frame()), **settings)
        held = Task(logistic_regression.model, frame(), **settings)
        assert away.size == N and len(away.data["x"]) <= 200 and away.rows.elsewhere
        assert torch.equal(away.data["x"], held.data["x"][away.rows.numbers])
        same_passes(away, held, draws_of(held))
    blocks = torch.cat([block["x"] for block in away.rows.blocks(0, N, 700, pin=False)])
    assert torch.equal(blocks, held.data["x"])
    assert away.rows.fingerprint() == Task(logistic_regression.model, split(frame(), 3), **settings).rows.fingerprint()


def test_labels_are_those_of_all_partitions(client):
    rows = opened(split(frame().sort_values("ward")), ["ward", "y"])
    assert rows.labels["ward"] == ("east", "west")
    known = frame().assign(ward=pd.Categorical(frame()["ward"], ["west", "north", "east"]))
    assert opened(split(known), ["ward"]).labels["ward"] == ("west", "north", "east")


def test_equal_rows_are_counted_there(client, counted_there):
    counted_there(frame(), split)


def test_a_worker_that_is_killed_changes_nothing(client, monkeypatch):
    def drawn():
        task = Task(logistic_regression.model, split(frame(), 6), columns=["x", "y"])
        idata = bayesdd.sample(task, draws=50, chains=2, seed=0, method=bayesdd.inference.laplace)
        return idata.posterior["w"].values

    whole, passes, own = drawn(), [], Partitions.total

    def watched(self, *arguments):
        passes.append(len(passes))
        if len(passes) == 3:
            os.kill(next(iter(client.run(os.getpid).values())), signal.SIGKILL)
        return own(self, *arguments)

    monkeypatch.setattr(Partitions, "total", watched)
    assert np.array_equal(drawn(), whole) and len(passes) > 4


def test_files_without_rows_add_nothing_and_such_as_lack_a_column_are_named(client, tmp_path):
    given = frame()
    for name, some in (("a", given[:1000]), ("b", given[:0]), ("c", given[1000:])):
        some.to_parquet(tmp_path / f"{name}.parquet", index=False)
    rows = opened(dd.read_parquet(tmp_path), ["x", "y"])
    assert torch.equal(rows.take(torch.arange(990, 1010))["x"][:, 1], torch.tensor(given["x[1]"].to_numpy()[990:1010]))
    (tmp_path / "b.parquet").unlink()
    given[:5].drop(columns="x[1]").to_parquet(tmp_path / "b.parquet", index=False)
    with one_line(r"partition lacks a column: .*x\[1\].*; partitions need equal columns: leave it out, or mend"):
        opened(dd.read_parquet(tmp_path), ["x", "y"])


def test_one_line_says_what_is_wrong(client, tmp_path):
    given = frame()
    with one_line("'t' holds datetime64"):
        opened(split(given.assign(t=pd.Timestamp("2020-01-01"))), ["t"])
    with one_line("text of more than 1,000 kinds"):
        opened(split(given.assign(s=[f"name {k}" for k in range(N)])), ["s"])
    infinite = given.assign(y=given["y"].astype(float))
    infinite.loc[2222, "y"] = np.inf
    with one_line("'y' is infinite, or does not fit float64, in row 2222"):
        opened(split(infinite), ["y"])
    with one_line("no rows"):
        opened(split(given.iloc[:0], 1), ["y"])
    wrong = given.assign(y=given["y"].astype(float))
    wrong.loc[1234, "y"] = 0.5
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(disk, "SAMPLE_ROWS", 10)
        task = Task(logistic_regression.model, split(wrong), columns=["x", "y"])
    with one_line(r"0\.5 in row 1234, outside the support"):
        Density([(task, task.rows, None)]).sweep(draws_of(task))


def test_a_partition_that_is_read_again_must_be_what_it_was():
    rows = pd.DataFrame({"y": np.arange(5.0)})

    def read(frame):
        return partitions._numbers(frame, {"y": {(): "y"}}, {}, 0)

    stamps = read(rows).stamps
    assert partitions._checked(read(rows), stamps, 3, lambda columns: float(columns["y"].sum())) == 10.0
    for other in (rows + 1, rows[:4]):
        with one_line("partition 3 was changed while its rows were needed"):
            partitions._checked(read(other), stamps, 3, len)


def test_a_cluster_that_goes_is_named(client):
    rows = opened(split(frame()), ["y"])
    client.close()  # the last test of this file
    with one_line("dask: the workers could not do it"):
        rows.total(len)
