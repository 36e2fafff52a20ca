"""One thread: tests assert mathematics, not speed, and two cores are shared with other processes."""

import pytest
import torch

torch.set_num_threads(1)


def pytest_itemcollected(item):
    """Tests that share a fixture of their file, or what a function keeps, run in one process: else it is made twice."""
    shared = [defs[-1] for defs in item._fixtureinfo.name2fixturedefs.values() if defs[-1].scope == "module"]
    named = item.function.__code__.co_names
    kept = [name for name in named if is_made_once(getattr(item.module, name, None))]
    if shared or kept:
        item.add_marker(pytest.mark.xdist_group(str(item.path) if shared else f"{item.path}:{kept[0]}"))


def is_made_once(found):
    """Whether something is a function of no arguments under ``functools.cache``."""
    return hasattr(found, "cache_info") and not found.__wrapped__.__code__.co_argcount
