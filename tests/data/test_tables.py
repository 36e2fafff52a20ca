"""Tables where they live: the same numbers from every library, and one line for what cannot be taken."""

import os

import numpy as np
import pandas as pd
import pytest
import torch

import bayesdd
from bayesdd.data import disk, tables
from bayesdd.data.columns import separated
from bayesdd.data.disk import on_disk
from bayesdd.data.media import variables_of
from bayesdd.data.rows import Held, opened
from bayesdd.density.density import Density
from bayesdd.task.task import Task
from models import logistic_regression

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")
pc = pytest.importorskip("pyarrow.compute")
duckdb = pytest.importorskip("duckdb")
polars = pytest.importorskip("polars")
N = 1200
NAMES = ["x[0]", "x[1]", "y", "ward", "pair"]


def frame(rows=N, seed=0):
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "x[0]": np.ones(rows, np.float32),
            "x[1]": rng.normal(size=rows),
            "y": rng.random(rows) < 0.4,
            "count": rng.integers(1, 9, rows),
            "ward": rng.choice(["west", "east"], rows),
            "pair": list(rng.normal(size=(rows, 2))),
        }
    )


@pytest.fixture
def folder(tmp_path):
    """Three files of 400 rows in row groups of 150, each with a dictionary of its own order."""
    (tmp_path / "rows").mkdir()
    whole = pa.Table.from_pandas(frame(), preserve_index=False)
    for k in range(3):
        part = whole.slice(400 * k, 400)
        place = part.schema.get_field_index("ward")
        part = part.set_column(place, "ward", part["ward"].combine_chunks().dictionary_encode())
        pq.write_table(part, tmp_path / "rows" / f"{k}.parquet", row_group_size=150)
    return tmp_path / "rows"


def expected():
    given = frame()
    return {
        "x": torch.tensor(given[["x[0]", "x[1]"]].to_numpy(float)),
        "y": torch.tensor(given["y"].to_numpy(int)),
        "ward": torch.tensor((given["ward"] == "west").to_numpy(int)),
        "pair": torch.tensor(np.stack(given["pair"])),
    }


def sources(folder):
    os.chdir(folder.parent)
    whole = pq.read_table(folder)
    return {
        "folder": folder,
        "pattern": "rows/*.parquet",
        "query": "SELECT * FROM 'rows/*.parquet'",
        "relation": duckdb.sql("FROM 'rows/*.parquet'"),
        "dataset": __import__("pyarrow.dataset").dataset.dataset(folder),
        "polars": polars.from_arrow(whole),
        "arrow": whole,
    }


@pytest.mark.parametrize("kind", ["folder", "pattern", "query", "relation", "dataset", "polars", "arrow"])
def test_every_source_gives_the_same_rows(folder, kind, monkeypatch):
    monkeypatch.chdir(folder.parent)
    source = sources(folder)[kind]
    stays = on_disk(source, columns=["x", "y", "ward", "pair"], memory=4 * 48 * 170)
    held = opened(source, ["x", "y", "ward", "pair"])
    assert isinstance(held, Held) and stays.most == 170 and stays.size == N
    order = [("east", "west"), ("west", "east")].index(stays.labels["ward"])
    for name, column in expected().items():
        column = column if name != "ward" or not order else 1 - column
        pieces = [block[name] for block in stays.blocks(0, N, 100, pin=False)]
        assert torch.equal(torch.cat(pieces), column) and torch.equal(held.columns[name], column)
    picked = torch.tensor([1199, 0, 399, 400, 401, 400])
    assert torch.equal(stays.take(picked)["x"], expected()["x"][picked])


def test_passes_are_those_of_memory_and_rows_may_come_in_any_order(folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    given = expected()
    held = Task(logistic_regression.model, {"x": given["x"], "y": given["y"]})
    draws = torch.randn(4, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    whole = Density([(held, held.rows, None)]).sweep(draws)
    seen = set()
    for source in ("rows", "SELECT * FROM 'rows/*.parquet' ORDER BY \"x[1]\""):
        task = Task(logistic_regression.model, on_disk(source, columns=["x", "y"], memory=4 * 24 * 200))
        assert torch.allclose(Density([(task, task.rows, None)]).sweep(draws), whole, rtol=1e-12, atol=0)
        seen.add(task.rows.fingerprint())
    assert len(seen) == 1


def test_only_the_columns_that_are_taken_are_read(folder, monkeypatch):
    asked, own = set(), tables.Batches.cursor

    def watched(self, members, labels):
        asked.update(variables_of(members))
        return own(self, members, labels)

    monkeypatch.setattr(tables.Batches, "cursor", watched)
    with pytest.warns(bayesdd.DataNote, match="ward"):
        Task(logistic_regression.model, folder)
    assert asked == {"x[0]", "x[1]", "y"}


def test_rows_are_read_no_oftener_than_needed(folder, monkeypatch):
    """Once for the sample, whoever takes it; and the first pass over all of them is that of the stamp too."""
    passes, own = [], tables.Batches.cursor
    monkeypatch.setattr(tables.Batches, "cursor", lambda *a: passes.append(1) or own(*a))
    rows = on_disk(folder, columns=["x", "y"])
    opening = len(passes)
    task, other = (Task(logistic_regression.model, rows) for _ in range(2))
    assert len(passes) == opening
    Density([(task, task.rows, None)]).sweep(torch.zeros(1, task.dim, dtype=torch.float64))
    assert task.rows.fingerprint()
    assert len(passes) == opening + 1
    assert other.rows.fingerprint() == task.rows.fingerprint()
    assert len(passes) == opening + 2
    assert other.rows.unseen(0, N)  # what one task has checked, the other has not


def test_files_of_other_widths_are_one_table(tmp_path):
    """Numbers of 32 and 64 bits, and a column of folders, come by another reader than equal files."""
    given, names = frame(), ["x[0]", "x[1]", "y"]
    for year, kind in ((2001, "float32"), (2002, "float64")):
        (tmp_path / f"year={year}").mkdir()
        half = given[names].iloc[: N // 2] if year == 2001 else given[names].iloc[N // 2 :]
        half.astype({"x[1]": kind}).to_parquet(tmp_path / f"year={year}" / "a.parquet", row_group_size=250)
    found = separated(on_disk(tmp_path, columns=["x", "y", "year"]).whole())[0]
    x1 = given["x[1]"].where(np.arange(N) >= N // 2, given["x[1]"].astype("float32").astype(float))
    assert found["x"].tolist() == np.c_[given["x[0]"], x1].tolist()
    assert found["y"].tolist() == given["y"].astype(int).tolist()
    assert found["year"].tolist() == [2001] * (N // 2) + [2002] * (N // 2)


def test_partitions_filters_and_weights(tmp_path):
    given = frame()
    pq.write_to_dataset(
        pa.Table.from_pandas(given.assign(year=2000 + np.arange(N) % 3, site=given["ward"]), preserve_index=False),
        tmp_path / "hive",
        partition_cols=["year", "site"],
    )
    rows = on_disk(tmp_path / "hive", columns=["year", "site", "ward"])
    assert rows.labels["site"] == ("east", "west") and set(rows.sample["year"].tolist()) == {2000, 2001, 2002}
    assert torch.equal(rows.sample["site"], rows.sample["ward"])
    some = on_disk(tmp_path / "hive", filter=(pc.field("year") == 2001) & (pc.field("count") > 4))
    assert some.size == sum((given["count"] > 4) & (np.arange(N) % 3 == 1))
    weighted = opened(tmp_path / "hive", ["y"], None, None, "count")
    assert float(weighted.sample_weight.sum()) == given["count"].sum()
    assert separated(next(weighted.blocks(0, 5, 5, pin=False)))[1].tolist() == weighted.sample_weight[:5].tolist()


def test_nulls_are_missing_and_decimals_numbers(tmp_path):
    rows = pa.table(
        {
            "a": pa.array([1, None, 3]),
            "b": pa.array(["1.25", "2.5", None]).cast(pa.decimal128(5, 2)),
            "c": pa.array([True, None, False]),
            "l": pa.array([[1, 2], None, [3, 4]]),
            "s": pa.array(["u", "", None]),
        }
    )
    pq.write_table(rows, tmp_path / "a.parquet")
    found = on_disk(tmp_path / "a.parquet", columns=["a", "b", "c", "l", "s"]).sample
    nan = float("nan")
    for name, values in {"a": [1, nan, 3], "b": [1.25, 2.5, nan], "c": [1, nan, 0], "s": [0, nan, nan]}.items():
        assert torch.equal(found[name].nan_to_num(-1.0), torch.tensor(values, dtype=torch.float64).nan_to_num(-1.0))
    assert torch.equal(found["l"].nan_to_num(-1.0), torch.tensor([[1.0, 2], [-1, -1], [3, 4]]).double())


def test_a_changed_row_changes_the_fingerprint_and_stops_a_pass(tmp_path, monkeypatch):
    """One value outside the sample, in a file of equal size whose times were set back."""
    monkeypatch.setattr(disk, "SAMPLE_ROWS", 10)
    path = tmp_path / "a.parquet"
    values = np.arange(5000.0)

    def write():
        pq.write_table(pa.table({"a": values}), path, compression="none", use_dictionary=False, write_statistics=False)

    write()
    before, rows = os.stat(path), on_disk(path)
    print_of = rows.fingerprint()
    os.utime(path, (1, 1))  # touched, not changed
    assert sum(len(block["a"]) for block in rows.blocks(0, 5000, 1000, pin=False)) == 5000
    values[1234] += 1
    write()
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (os.stat(path).st_size, os.stat(path).st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    with pytest.raises(OSError, match=r"a\.parquet was changed while its rows were needed"):
        next(rows.blocks(0, 5000, 1000, pin=False))
    assert on_disk(path).fingerprint() != print_of
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"a\.parquet was removed"):
        next(rows.blocks(0, 5000, 1000, pin=False))


def test_a_query_whose_rows_change_is_named():
    connection = duckdb.connect()
    connection.sql("CREATE TABLE t AS SELECT range::DOUBLE AS a FROM range(1000)")
    rows = on_disk(connection.sql("FROM t"))
    list(rows.blocks(0, 1000, 100, pin=False))
    connection.execute("UPDATE t SET a = -1 WHERE a = 500")
    with pytest.raises(OSError, match="query was changed while its rows were needed"):
        list(rows.blocks(0, 1000, 100, pin=False))
    connection.execute("DELETE FROM t WHERE a = -1")
    with pytest.raises(OSError, match="other rows than before"):
        list(rows.blocks(0, 1000, 100, pin=False))


def bad(tmp_path, **columns):
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    return tmp_path / "a.parquet"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: on_disk(p / "no.parquet"), "no such file"),
        (lambda p: on_disk(p / "*.parquet"), "no such files of Parquet or Arrow"),
        (lambda p: on_disk(p), "no such file"),
        (lambda p: on_disk(bad(p, a=[1], d=pa.array([0]).cast("timestamp[us]")), columns=["d"]), "'d' holds timestamp"),
        (lambda p: on_disk(bad(p, a=[b"\x00"]), columns=["a"]), "'a' holds binary"),
        (lambda p: on_disk(bad(p, a=[{"u": 1}]), columns=["a"]), "'a' holds struct"),
        (lambda p: on_disk(bad(p, a=[[1, 2], [3]])), r"'a' has a list of 1 numbers in row 1"),
        (lambda p: on_disk(bad(p, a=[str(k) for k in range(2000)]), columns=["a"]), "text of more than 1,000 kinds"),
        (lambda p: on_disk(bad(p, a=["1", "2"]), columns=["a"]), "'a' holds numbers written as text"),
        (lambda p: on_disk(bad(p, a=["2020-01-01"]), columns=["a"]), "'a' holds dates"),
        (lambda p: on_disk(bad(p, a=pa.array([None, None], pa.float64()))), "'a' has every value missing"),
        (lambda p: on_disk(bad(p, a=pa.array([], pa.float64()))), "no rows"),
        (lambda p: on_disk(bad(p, a=[1.0]), columns=["b"]), "columns= names 'b', which is not there"),
        (lambda p: on_disk(bad(p, a=[1.0]), filter=pc.field("b") > 1), r"a\.parquet: it cannot be read.*b"),
        (lambda p: opened(bad(p, a=[1.0], w=[-1]), ["a"], None, None, "w"), "the weight of row 0 .* is -1"),
        (lambda p: opened(bad(p, a=[1.0], w=[1]), ["a"], None, None, "v"), "weight= names 'v', which is not there"),
        (lambda p: opened(bad(p, s=["u", "v"]), ["s"], None, {"s": ["u"]}), "has the label 'v', which is none of"),
        (lambda p: on_disk("SELECT nonsense"), "query 'SELECT nonsense': it fails.*nonsense"),
        (lambda p: on_disk("SELECT 1 AS a", filter=pc.field("a") > 0), "filter= takes rows of Parquet"),
        (lambda p: on_disk("SELECT p FROM p"), "p does not exist"),  # a variable of Python is no table
        (lambda p: on_disk(polars.LazyFrame({"a": [1]})), r"give its \.collect\(\)"),
    ],
)
def test_one_line_says_what_is_wrong(tmp_path, make, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message) as caught:
        make(tmp_path)
    assert "\n" not in str(caught.value)


def test_files_that_differ_are_named_where_the_column_is_taken(tmp_path):
    pq.write_table(pa.table({"a": [1], "b": [1.0], "c": [1]}), tmp_path / "0.parquet")
    pq.write_table(pa.table({"a": [2.5], "b": ["u"]}), tmp_path / "1.parquet")
    pq.write_table(pa.table({"a": pa.array([1], pa.int32()), "b": ["v"]}).slice(1), tmp_path / "2.parquet")  # no rows
    assert on_disk(tmp_path, columns=["a"]).sample["a"].tolist() == [1.0, 2.5]
    with pytest.raises(ValueError, match=r"column 'b' holds labels in \S*1\.parquet, numbers elsewhere"):
        on_disk(tmp_path, columns=["b"])
    with pytest.raises(ValueError, match=r"column 'c' is not in \S*1\.parquet"):
        on_disk(tmp_path, columns=["c"])


def test_whole_numbers_that_turn_out_missing_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr(disk, "SAMPLE_ROWS", 10)
    values = pa.array([None if k == 777 else k for k in range(3000)])
    rows = on_disk(bad(tmp_path, a=values), memory=4 * 8 * 500)
    with pytest.raises(ValueError, match=r"'a' holds whole numbers in the rows looked at, but not in row 777"):
        list(rows.blocks(0, 3000, 500, pin=False))


def test_damaged_parquet_is_refused(tmp_path):
    """Every flip of the footer is refused, gives other numbers with another fingerprint, or changes nothing."""
    path = bad(tmp_path, a=np.arange(300.0))
    whole, print_of = path.read_bytes(), on_disk(path).fingerprint()
    rng = np.random.default_rng(0)
    for place in rng.integers(len(whole) // 2, len(whole), 60):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        try:
            rows = on_disk(path)
            assert rows.fingerprint() == print_of or not torch.equal(rows.sample["a"], torch.arange(300.0).double())
        except (bayesdd.Refusal, OSError) as error:
            assert "\n" not in str(error)


def test_a_name_that_is_no_text_any_more_is_refused(tmp_path):
    pd.DataFrame({"covariate": [0.0, 1.0]}).to_feather(tmp_path / "a.arrow")
    content = (tmp_path / "a.arrow").read_bytes()
    (tmp_path / "a.arrow").write_bytes(content.replace(b"covariate", b"\xf9ovariate"))
    with pytest.raises(bayesdd.Refusal, match=r"a\.arrow: it cannot be read: .*codec can't decode"):
        opened(tmp_path / "a.arrow")
