"""What a device has."""

from pathlib import Path

import pytest
import torch

from bayesdd.numerics.devices import available


@pytest.mark.skipif(not Path("/proc/meminfo").exists(), reason="Linux says what its files' cache would give back")
def test_memory_that_files_are_kept_in_can_be_taken():
    read = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    free, cached, shared, total = (
        1024 * int(read[name].split()[0]) for name in ("MemFree", "Cached", "Shmem", "MemTotal")
    )
    found = available(torch.device("cpu"))
    assert found == pytest.approx(1024 * int(read["MemAvailable"].split()[0]), abs=2**29)
    assert free - 2**29 < found <= total
    assert found > free + (cached - shared) / 2 - 2**30
