"""One thread: tests assert mathematics, not speed, and two cores are shared with other processes."""

import pytest
import torch

torch.set_num_threads(1)


def pytest_itemcollected(item):
    """Tests that share a fixture of their file run in one process: made twice, it would take its time twice."""
    shared = [defs[-1] for defs in item._fixtureinfo.name2fixturedefs.values() if defs[-1].scope == "module"]
    if shared:
        item.add_marker(pytest.mark.xdist_group(str(item.path)))
