"""Ranges that sources have observed: coordinates that cannot leave them."""

import torch

from bayesdd.dbn import Source, Template
from bayesdd.dbn.merging.ranges import Ranges


def test_coordinates_within_ranges_are_inverted_and_never_leave_them():
    template = Template(("b", "a"), static=("s",), intra=(("a", "b"),))  # parents first: s, a, b
    x = torch.tensor([[[1.0, -2.0]], [[3.0, 5.0]]], dtype=torch.float64)
    ranges = Ranges.of(template, [Source({"x": x, "static": torch.tensor([[0.0], [1.0]])})])
    assert ranges.low.tolist() == [0.0, -2.0, 1.0] and ranges.high.tolist() == [1.0, 5.0, 3.0]
    every = torch.randn(50, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    within = ranges.inside(20 * every)
    assert not ranges.left(within) and ranges.left(20 * every)
    inner = ranges.low + (ranges.high - ranges.low) * (0.5 + 0.4 * torch.tanh(every))
    torch.testing.assert_close(ranges.inside(ranges.free(inner)), inner)
    middle = ((ranges.low + ranges.high) / 2).expand(2, 3)
    torch.testing.assert_close(ranges.inside(middle + 1e-4), middle + 1e-4, rtol=0, atol=1e-10)  # the identity there
    assert ranges.entries(1, 2).high.tolist() == [1.0, 5.0, 3.0, 5.0, 3.0]
