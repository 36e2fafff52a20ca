"""Checkpoints: resumed to the last digit, damage said and computed anew, other files left alone."""

import warnings

import numpy as np
import pytest
import torch

import bayesdd
from bayesdd.density import checkpoint
from bayesdd.density.checkpoint import MARK, Checkpoint
from models import gaussian_mean

TASK = gaussian_mean.task(rows=20)
DRAWS = [torch.full((3, 2), float(k), dtype=torch.float64) for k in range(4)]
SUMS = [[torch.arange(3, dtype=torch.float64) + k, torch.ones(3, 2, dtype=torch.float64) * k] for k in range(4)]


@pytest.fixture(autouse=True)
def every_pass_is_kept(monkeypatch):
    monkeypatch.setattr(checkpoint, "LEAST_CELLS", 1)


def filled(path):
    kept = Checkpoint(path, [TASK])
    for draws, sums in zip(DRAWS, SUMS, strict=True):
        kept.sums("sweep", draws, 10, lambda sums=sums: sums)
    return kept


def taken(path):
    """Sums by a checkpoint that was opened anew, and how many of them were computed again."""
    kept, again = Checkpoint(path, [TASK]), []

    def make(k):
        again.append(k)
        return SUMS[k]

    found = [kept.sums("sweep", draws, 10, lambda k=k: make(k)) for k, draws in enumerate(DRAWS)]
    assert all(torch.equal(a, b) for one, sums in zip(found, SUMS, strict=True) for a, b in zip(one, sums, strict=True))
    return len(again)


def test_sums_come_back(tmp_path):
    filled(tmp_path / "c")
    assert taken(tmp_path / "c") == 0


def test_damage_is_said_and_computed_anew(tmp_path):
    """Every flip: the right sums, and a warning wherever one had to be computed again."""
    filled(tmp_path / "c")
    whole, rng = (tmp_path / "c").read_bytes(), np.random.default_rng(0)
    for place in rng.integers(len(MARK), len(whole), 120):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << int(rng.integers(8))
        (tmp_path / "c").write_bytes(damaged)
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            again = taken(tmp_path / "c")
        assert said or not again, place
    (tmp_path / "c").write_bytes(whole[: len(whole) // 2])
    with pytest.warns(UserWarning, match="cannot be resumed"):
        assert taken(tmp_path / "c") == 4


@pytest.mark.parametrize("content", [b"", b"x,y\n1,2\n", b"PK\x03\x04"])
def test_other_files_are_refused_and_left_alone(content, tmp_path):
    (tmp_path / "c").write_bytes(content)
    with pytest.raises(bayesdd.Refusal, match="no checkpoint"):
        bayesdd.distill(TASK, size=1, checkpoint=tmp_path / "c", progress=False)
    assert (tmp_path / "c").read_bytes() == content


def test_a_path_that_cannot_be_written_warns_once(tmp_path):
    kept = Checkpoint(tmp_path / "absent" / "c", [TASK])
    with pytest.warns(UserWarning, match="no checkpoint is kept"):
        kept.sums("sweep", DRAWS[0], 10, lambda: SUMS[0])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert kept.sums("sweep", DRAWS[1], 10, lambda: SUMS[1]) is SUMS[1]
