"""The list of faults fits the code: each stands where it says, once, and its tests exist."""

import importlib.util

import pytest

spec = importlib.util.spec_from_file_location("mutations", f"{__file__.rpartition('/')[0]}/mutations.py")
mutations = importlib.util.module_from_spec(spec)
spec.loader.exec_module(mutations)


@pytest.mark.parametrize("one", mutations.MUTATIONS, ids=lambda one: one.fault)
def test_each_fault_can_be_put_in(one):
    assert (mutations.ROOT / one.file).read_text(encoding="utf-8").count(one.old) == 1
    assert one.new != one.old
    assert all((mutations.ROOT / test).exists() for test in one.tests.partition(" -k ")[0].split())
