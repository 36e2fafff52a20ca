"""The stamp of rows: the same in any order and however they are cut, another where a value differs."""

import torch

from bayesdd.data.stamp import BLOCK, stamp


def test_order_and_blocks_do_not_matter_and_every_value_does():
    generator = torch.Generator().manual_seed(0)
    count = 3 * BLOCK + 7  # the sum goes beyond 64 bits, as it may, and says nothing
    rows = {"x": torch.randn(count, 2, dtype=torch.float64, generator=generator), "y": torch.arange(count)}
    whole, mixed = stamp(rows), torch.randperm(count, generator=generator)
    assert torch.equal(stamp({name: column[mixed] for name, column in rows.items()}), whole)
    halves = [stamp({name: column[part] for name, column in rows.items()}) for part in (slice(99), slice(99, None))]
    assert torch.equal(halves[0] + halves[1], whole)
    rows["x"][BLOCK, 1] += 1e-9
    assert not torch.equal(stamp(rows), whole)
