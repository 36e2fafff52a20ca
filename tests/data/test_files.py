"""Files: whole or not at all."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from bayesdd.data.distilled import Distilled
from bayesdd.data.files import claimed, load, one_line, replacing, vacant

ROOT = Path(__file__).parents[2]
SMALL = Distilled({"x": torch.ones(3)}, torch.ones(3))

FULL_DISK = """
import resource, signal, sys, torch
from bayesdd.data.distilled import Distilled
small = Distilled({"x": torch.ones(3)}, torch.ones(3))
large = Distilled({"x": torch.arange(200000)}, torch.ones(200000))
small.to_netcdf(sys.argv[1])
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))  # the kernel refuses longer files, as a full disk would
try:
    large.to_netcdf(sys.argv[1])
except OSError as error:
    print(error)
"""


def test_a_full_disk_leaves_the_earlier_file(tmp_path):
    path = tmp_path / "d.nc"
    run = subprocess.run(
        [sys.executable, "-c", FULL_DISK, path], cwd=ROOT, capture_output=True, text=True, timeout=300, check=True
    )
    assert run.stdout.count("\n") == 1 and "d.nc" in run.stdout and "unchanged" in run.stdout, run
    assert len(Distilled.from_netcdf(path)) == 3 and os.listdir(tmp_path) == ["d.nc"]


@pytest.mark.parametrize("name", ["absent/d.nc", "", "file/d.nc"])
def test_places_that_cannot_be_written(name, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"^cannot write .*$"):
        SMALL.to_netcdf(tmp_path / name)
    with pytest.raises(OSError, match="device"):
        SMALL.to_netcdf("/dev/full")
    assert not Path("/dev/full").is_file()


def test_a_link_is_followed(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "d.nc").symlink_to(tmp_path / "folder" / "real.nc")
    SMALL.to_netcdf(tmp_path / "d.nc")
    assert (tmp_path / "d.nc").is_symlink() and os.listdir(tmp_path / "folder") == ["real.nc"]


def test_a_failure_of_any_kind_leaves_the_earlier_file_alone(tmp_path):
    path = tmp_path / "a.txt"
    with replacing(path) as part:
        part.write_text("earlier")
    for error in (KeyboardInterrupt, ZeroDivisionError):
        with pytest.raises(error), replacing(path) as part:
            part.write_text("half")
            raise error
    assert path.read_text() == "earlier" and os.listdir(tmp_path) == ["a.txt"]


def test_a_write_protected_file_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    path.touch()
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write everything
    with pytest.raises(PermissionError, match="write-protected"), replacing(path):
        pass


def test_failures_of_reading_are_one_line(tmp_path):
    def read(path):
        raise RuntimeError("two\nlines")

    (tmp_path / "a.nc").touch()
    with pytest.raises(ValueError, match=r"^\S*a\.nc cannot be read as a poem; .*: two lines$"):
        load(tmp_path / "a.nc", read, "a poem")
    with pytest.raises(IsADirectoryError, match="a poem was expected"):
        load(tmp_path, read, "a poem")
    assert one_line(ValueError()) == "ValueError"


def test_a_flipped_bit_in_the_values_is_noticed(tmp_path):
    path = tmp_path / "d.nc"
    distilled = Distilled({"x": torch.linspace(0, 1, 4000, dtype=torch.float64)}, torch.ones(4000))
    distilled.to_netcdf(path)
    damaged = bytearray(path.read_bytes())
    position = damaged.find(distilled.data["x"][2000:2002].numpy().tobytes())
    assert position > 0
    damaged[position] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(ValueError, match="cannot be read"):
        Distilled.from_netcdf(path)


HOLDS = """
import sys, time
from bayesdd.data.files import claimed
with claimed(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


def test_one_process_at_a_time_writes_a_file(tmp_path):
    out = tmp_path / "d.nc"
    holder = subprocess.Popen([sys.executable, "-c", HOLDS, str(out)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(OSError, match="another process"), claimed(out):
            pass
    finally:
        holder.kill()
        holder.communicate()
    with claimed(out):  # what a killed process held is free
        pass
    assert os.listdir(tmp_path) == []


def test_what_a_killed_process_left_is_removed_by_the_next(tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    old = tmp_path / f".d.nc.{dead.pid}.abcd.part"
    kept = [tmp_path / f".d.nc.{os.getpid()}.abcd.part", tmp_path / f".other.nc.{dead.pid}.abcd.part"]
    for path in (old, *kept):
        path.write_text("half")
        os.utime(path, (0, 0))
    with replacing(tmp_path / "d.nc") as part:
        part.write_text("whole")
    assert not old.exists() and all(path.exists() for path in kept) and (tmp_path / "d.nc").read_text() == "whole"


def test_a_vacant_path_is_one_where_nothing_is_yet(tmp_path):
    assert vacant(tmp_path / "new.html") == tmp_path / "new.html" and not (tmp_path / "new.html").exists()
    (tmp_path / "old.html").write_text("mine")
    with pytest.raises(FileExistsError, match="exists already"):
        vacant(tmp_path / "old.html")
    with pytest.raises(FileNotFoundError, match="does not exist"):
        vacant(tmp_path / "absent" / "new.html")
