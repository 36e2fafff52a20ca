"""Sufficient statistics of patterns: they are those of the rows."""

import torch

from bayesdd.dbn.inference.patterns import commonest, patterns_of
from bayesdd.dbn.likelihood.gaussian import entries, grouped
from bayesdd.dbn.template.template import Template

PAIR = Template(("a", "b"), intra=(("a", "b"),))


def rows(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, 2, 2, generator=generator, dtype=torch.float64)
    x[: count // 2, 1, 0], x[0, 0, 1], x[1, 0, 0] = torch.nan, torch.nan, torch.nan
    return x, torch.zeros(count, 0, dtype=torch.float64)


def test_roots_have_the_second_moments_of_the_rows_and_no_more_rows_than_entries():
    both = [rows(30), rows(40, seed=1)]
    found = patterns_of(PAIR, both)
    assert {(some.at.shape[1], some.root.shape[1]) for some in found} == {(2, 1), (3, 4), (4, 5)}
    for source, some in enumerate(both):
        flat = entries(PAIR, *some)
        for mine, at in grouped(~flat.isnan()):
            design = torch.cat([torch.ones(len(mine), 1, dtype=torch.float64), flat[mine][:, at]], 1)
            group = next(one for one in found if one.at.shape[1] == len(at))
            here = ((group.source == source) & (group.at == at).all(1)).nonzero()[0]
            torch.testing.assert_close(group.root[here[0]].mT @ group.root[here[0]], design.mT @ design)
            assert float(group.count[here[0]]) == len(mine)


def test_patterns_wider_than_a_machine_word_are_told_apart():
    seen = torch.ones(5, 150, dtype=torch.bool)
    seen[1, 149], seen[2, 0], seen[3, 149] = False, False, False
    groups = sorted((rows.tolist(), len(at)) for rows, at in grouped(seen))
    assert groups == [([0, 4], 150), ([1, 3], 149), ([2], 149)]


def test_the_commonest_patterns_of_every_source_are_kept():
    found = commonest(patterns_of(PAIR, [rows(30), rows(8, seed=1)]), 2)
    kept = sorted((int(s), int(n)) for some in found for s, n in zip(some.source, some.count, strict=True))
    assert kept == [(0, 13), (0, 15), (1, 2), (1, 4)]
