"""Rows of a Spark DataFrame on two processes: the sums of one, also when a worker dies; one line for mistakes."""

import gc
import os
import shutil
import signal
import sys
import time
from contextlib import contextmanager

import numpy as np
import pandas as pd
import pytest
import torch

import bayesdd
from bayesdd.data import disk, spark
from bayesdd.data.rows import opened
from bayesdd.density.density import Density
from bayesdd.task.task import Task
from models import logistic_regression

sql = pytest.importorskip("pyspark.sql")
N = 3000

pytestmark = [
    pytest.mark.long,  # starts Java and two processes
    pytest.mark.skipif(
        not (shutil.which("java") or os.environ.get("JAVA_HOME")),
        reason="Spark needs Java: apt-get install default-jre-headless",
    ),
    pytest.mark.filterwarnings("ignore:PySpark does not yet fully support pandas:FutureWarning"),
]


@contextmanager
def one_line(message):
    with pytest.raises((ValueError, OSError), match=message) as caught:
        yield
    assert "\n" not in str(caught.value)


def until(holds, seconds=30.0):
    """Waits for what a thread does."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it never came to hold"
        time.sleep(0.01)


@pytest.fixture(scope="module")
def session():
    own = {"PYSPARK_PYTHON": sys.executable, "SPARK_LOCAL_IP": "127.0.0.1", "OMP_NUM_THREADS": "1"}
    settings = {
        "spark.ui.enabled": "false",
        "spark.sql.shuffle.partitions": "3",
        "spark.log.level": "OFF",
        "spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC",  # a short life
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in own.items():
            patch.setenv(name, value)
        found = sql.SparkSession.builder.master("local[2, 3]").config(map=settings).getOrCreate()
        yield found
        found.stop()


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


@pytest.fixture
def stored(session, tmp_path):
    """Writes a frame as Parquet files, by default three of different sizes, and reads them by Spark."""

    def made(given, cuts=(700, 1500)):
        pieces = np.split(np.arange(len(given)), cuts)
        for k, rows in enumerate(pieces):
            given.iloc[rows].to_parquet(tmp_path / f"{k}.parquet", index=False)
        return session.read.parquet(*(str(tmp_path / f"{k}.parquet") for k in range(len(pieces))))

    return made


@pytest.fixture
def kept(session):
    """Numbers of what Spark keeps; of tests before, some may still be on its way out, and numbers are given once."""
    return lambda: set(session.sparkContext._jsc.getPersistentRDDs())


def draws_of(task, count=5):
    return torch.randn(count, task.dim, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def test_passes_are_those_of_one_process(stored, same_passes, monkeypatch):
    monkeypatch.setattr(disk, "SAMPLE_ROWS", 200)
    monkeypatch.setattr(spark, "PIECE", 300)
    rows = stored(frame()).repartition(4)
    for settings in ({"columns": ["x", "y"]}, {"columns": ["x", "y"], "weight": "count"}):
        away = Task(logistic_regression.model, rows, **settings)
        held = Task(logistic_regression.model, frame(), **settings)
        assert away.size == N and len(away.data["x"]) <= 200 and away.rows.elsewhere
        same_passes(away, held, draws_of(held))
    every = torch.cat([block["x"] for block in away.rows.blocks(0, N, 1700, pin=False)])
    assert torch.equal(away.data["x"], every[away.rows.numbers])
    assert torch.equal(every[:, 1].sort().values, held.data["x"][:, 1].sort().values)


def test_columns_are_those_of_arrow(stored, session):
    given = frame().assign(pair=list(np.arange(2.0 * N).reshape(N, 2)))
    given.loc[5, "ward"] = None
    rows = stored(given).selectExpr(
        "*", "CAST(count AS DECIMAL(9, 2)) AS exact", "CASE WHEN count > 1 THEN count END AS more"
    )
    found = opened(rows, ["ward", "pair", "exact", "more"])
    assert found.labels["ward"] == ("east", "west")
    some = found.take(torch.arange(N))
    place = (some["pair"][:, 0] / 2).long()  # files come in Spark's order
    assert place.sort().values.tolist() == list(range(N)) and some["exact"].dtype == torch.float64
    assert place[some["ward"].isnan()].tolist() == [5]
    assert torch.equal(some["exact"], torch.tensor(given["count"].to_numpy(float))[place])
    more = torch.tensor(given["count"].where(given["count"] > 1).to_numpy(float))[place]
    assert torch.equal(some["more"].nan_to_num(-1), more.nan_to_num(-1))


def test_equal_rows_are_counted_there(stored, counted_there):
    counted_there(frame(), stored)


def test_a_worker_that_is_killed_changes_nothing(stored, tmp_path):
    rows, died = opened(stored(frame()), ["x", "y"]), tmp_path / "died"

    def sums(columns, first):
        if first and not died.exists():
            died.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return (columns["x"].sum(0), columns["x"].mT @ columns["y"].double())

    once = rows.total(sums)
    assert died.exists()
    assert all(torch.equal(a, b) for a, b in zip(once, rows.total(sums), strict=True))


def test_a_partition_that_is_read_again_must_be_what_it_was(session, tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("1.5\n2.5\n")
    rows = opened(session.read.schema("y double").csv(str(path)), ["y"])

    def sums(columns, first):
        return (columns["y"].sum(),)

    assert float(rows.total(sums)[0]) == 4.0
    path.write_text("1.5\n3.5\n")
    for kept in rows.medium.kept.values():
        kept.frame.unpersist(True)  # as when the machine that kept it is lost
    with one_line("Spark DataFrame was changed while its rows were needed"):
        rows.total(sums)


def test_kept_rows_are_let_go_with_the_task(stored, kept):
    before = kept()
    task = Task(logistic_regression.model, stored(frame()), columns=["x", "y"])
    own = kept() - before
    assert len(own) == 1
    del task
    until(lambda: not own & kept())


def test_garbage_collected_amid_a_call_does_not_break_it(stored, session, kept):
    before = kept()
    tasks = [Task(logistic_regression.model, stored(frame(300)), columns=["x", "y"])]
    own = kept() - before
    assert len(own) == 1
    connection = session.sparkContext._gateway._gateway_client.get_thread_connection()
    stream = connection.stream

    class Reading:
        def readline(self):
            tasks.clear()  # as the collector may
            gc.collect()
            return stream.readline()

    connection.stream = Reading()
    try:
        assert session.range(7).count() == 7
    finally:
        connection.stream = stream
    until(lambda: not own & kept())


def test_one_line_says_what_is_wrong(stored, session):
    rows = stored(frame(), cuts=(0, 1500))  # the first file is empty
    assert opened(rows, ["y"]).size == N
    for column, message in {
        "current_date() AS s": "'s' holds date; give days since the first",
        "current_timestamp() AS s": "'s' holds timestamp; give days since the first",
        "map('a', 1) AS s": "'s' holds map",
        "uuid() AS s": "text of more than 1,000 kinds",
        "CAST(NULL AS STRING) AS s": "every value missing",
        "CAST(NULL AS DOUBLE) AS s": "every value missing",
        "array_repeat(1.0, CAST(count AS INT)) AS s": "lists of a column need one length",
        "IF(`x[1]` > 1, double('inf'), 0) AS s": "'s' is infinite, or does not fit float64, in row",
        "1 / IF(`x[1]` > 1, 0, 1) AS s": "Spark: the workers could not do it: .*DIVIDE_BY_ZERO",
        "CAST(ward AS INT) AS s": "Spark: the workers could not do it: .*CAST_INVALID_INPUT",
    }.items():
        with one_line(message):
            opened(rows.selectExpr("*", column), ["s"])
    for given, message in {
        rows.limit(0): "no rows",
        session.readStream.format("rate").load(): "a stream has no end",
    }.items():
        with one_line(message):
            opened(given, ["y"])
    with one_line("'z'"):
        Task(logistic_regression.model, rows, columns=["x", "z"])
    with one_line("'count'.*'wards'|'wards'"):
        Task(logistic_regression.model, rows, columns=["x", "y"], weight="wards")
    with one_line("weight of row .* is 0; weights are positive"):
        opened(rows.selectExpr("y", "IF(`x[1]` > 1, 0, 1) AS s"), ["y"], weight="s")


def test_a_row_outside_the_support_is_found_by_the_first_pass(stored, monkeypatch):
    wrong = frame().assign(y=frame()["y"].astype(float))
    wrong.loc[1234, "y"] = 0.5
    monkeypatch.setattr(disk, "SAMPLE_ROWS", 10)
    task = Task(logistic_regression.model, stored(wrong), columns=["x", "y"])
    with one_line(r"0\.5 in row \d+, outside the support"):
        Density([(task, task.rows, None)]).sweep(draws_of(task))


def test_a_distillation_is_that_of_one_process(stored):
    settings = {"seed": 0, "progress": False, "size": 4, "tolerance": 0.1}
    away = bayesdd.distill(Task(logistic_regression.model, stored(frame(300), ()), columns=["x", "y"]), **settings)
    held = bayesdd.distill(Task(logistic_regression.model, frame(300), columns=["x", "y"]), **settings)
    assert torch.allclose(away.weight, held.weight, rtol=1e-6)


def test_a_module_that_workers_lack_is_named(stored):
    rows = opened(stored(frame(), ()), ["y"])

    def absent(columns, first):
        import a_module_of_mine  # noqa: F401

    with one_line("Spark's workers cannot import 'a_module_of_mine'"):
        rows.total(absent)
