"""Decoded blocks of tables are kept between passes: the same rows, fewer reads, bounded bytes, nothing stale."""

import os
import pickle

import numpy as np
import pandas as pd
import pytest
import torch

from bayesdd.data import disk
from bayesdd.data.disk import on_disk

pytest.importorskip("pyarrow")
N, STEP = 4_000, 100
ROW = 16  # bytes of two columns


@pytest.fixture
def path(tmp_path):
    rng = np.random.default_rng(0)
    rows = pd.DataFrame({"x": rng.normal(size=N), "y": rng.normal(size=N)})
    rows.to_parquet(tmp_path / "rows.parquet", row_group_size=500)
    return tmp_path / "rows.parquet"


def passed(rows):
    """All rows of a pass."""
    blocks = list(rows.blocks(0, N, STEP, pin=False))
    return {name: torch.cat([block[name] for block in blocks]) for name in ("x", "y")}


def rows_read(rows, monkeypatch):
    """Rows that a pass takes from the file."""
    counted, read = [], disk.Stored._read
    with monkeypatch.context() as patched:
        patched.setattr(
            disk.Stored, "_read", lambda self, cursor, a, b: counted.append(b - a) or read(self, cursor, a, b)
        )
        found = passed(rows)
    given = pd.read_parquet(rows.medium.paths[0])
    assert all(found[name].tolist() == given[name].tolist() for name in found)
    return sum(counted)


@pytest.mark.parametrize("share", [1.0, 0.25])
def test_later_passes_read_what_there_was_no_room_for(path, share, monkeypatch):
    rows = on_disk(path, memory=int(share * N * ROW / disk.KEPT))
    rows.fingerprint()  # a stamp is of what the file holds, so that its pass keeps nothing
    assert not rows.known.kept
    assert rows_read(rows, monkeypatch) == N
    left = rows_read(rows, monkeypatch)
    assert left == pytest.approx((1 - share) * N, abs=STEP * disk.IN_FLIGHT)
    kept = sum(column.nbytes for block in rows.known.kept.values() for column in block.values())
    assert kept <= share * N * ROW
    assert not pickle.loads(pickle.dumps(rows.known)).kept


def test_what_was_kept_is_not_given_for_rows_that_changed(path, monkeypatch):
    rows = on_disk(path)
    rows.fingerprint()
    assert rows_read(rows, monkeypatch) == N and rows_read(rows, monkeypatch) == 0
    os.utime(path, ns=(0, 0))  # touched: the content is stamped again and is the same
    assert rows_read(rows, monkeypatch) >= N
    changed = pd.read_parquet(path)
    changed.loc[7, "y"] += 1.0
    changed.to_parquet(path, row_group_size=500)
    with pytest.raises(OSError, match="was changed while its rows were needed"):
        passed(rows)


def test_a_query_whose_files_nobody_watches_is_read_anew(path, monkeypatch):
    pytest.importorskip("duckdb")
    rows = on_disk(f"SELECT * FROM '{path}'")
    for _ in range(2):
        assert sum(len(block["x"]) for block in rows.blocks(0, N, STEP, pin=False)) == N
    assert not rows.known.kept


def test_blocks_of_another_length_take_the_room_of_those_before(path, monkeypatch):
    rows = on_disk(path, memory=int(N * ROW / disk.KEPT))
    rows.fingerprint()
    for step in (STEP, 70):
        assert sum(len(block["x"]) for block in rows.blocks(0, N, step, pin=False)) == N
        spans = rows.known.kept
        assert spans and all((stop - start) % step == 0 or stop == N for start, stop in spans)


def test_a_dataset_in_memory_has_no_file_to_watch(path):
    dataset = pytest.importorskip("pyarrow.dataset")
    table = pytest.importorskip("pyarrow.parquet").read_table(path)
    rows = on_disk(dataset.dataset(table))
    assert passed(rows)["x"].tolist() == pd.read_parquet(path)["x"].tolist()
    assert not rows.known.kept
