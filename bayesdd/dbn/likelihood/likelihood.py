"""Which density serves which rows, and the log-likelihood of rows at many draws.

The choice looks at the rows once, beforehand; what is chosen is a plain function of tensors, batched by vmap. Measured
on one thread: microseconds for one draw of one row, in brackets with its gradient in the draw, of V variables and T
slices.

==============================  ===============  ===================
entries missing                 V = 3, T = 4     V = 10, T = 10
==============================  ===============  ===================
none: complete                  0.2 (0.3)        1 (2)
by_pattern, 2 patterns          0.1 (0.2)        2 (5)
by_pattern, 8 patterns          0.3 (0.8)        5 (15)
by_pattern, 30 patterns                          14 (50), 0.1 MB
filtered, any patterns          2 (5)            19 (66), 0.4 MB
one Cholesky factor a row       1 (8)            113 (790), 0.3 MB
==============================  ===============  ===================

A pattern also costs 45 operations of the recorded graph, so patterns are told apart up to ``PATTERNS``.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor
from torch.func import vmap

from bayesdd.dbn.likelihood import categorical, elimination, gaussian, messages, missing

if TYPE_CHECKING:
    from bayesdd.dbn.template.template import Template

Values = dict[str, Tensor]
PATTERNS = 32
CELLS = 2**21  # numbers that the entries of one chunk of draws may take: 16 MB
CATEGORICAL_PATTERNS = 8  # 8 operations of the recorded graph an entry and pattern
FRONTIER = 4096  # joint states of missing entries held at once: 32 kB a row and draw
FEW_STATES = 64  # up to which all joint states of a slice cost less than each sequence's own


class Likelihood(NamedTuple):
    """Log densities of one draw: of sequences given static values, and of static values; ``(rows,)`` each, nats."""

    sequences: Callable[[Template, Values, Tensor, Tensor], Tensor]
    static: Callable[[Template, Values, Tensor], Tensor]


def anything(template: Template) -> Likelihood:
    """For rows of any pattern of missing entries."""
    if template.states:
        return Likelihood(categorical.forward, categorical.static_forward)
    return Likelihood(missing.filtered, missing.static_density)


def chosen(template: Template, x: Tensor, static: Tensor) -> Likelihood:
    """The cheapest for given rows, exact for complete rows too.

    Raises:
        ValueError: Categorical rows with missing entries of too many patterns and joint states.
    """
    whole = not bool(x.isnan().any() or static.isnan().any())
    if template.states and whole:
        return Likelihood(categorical.complete, categorical.static_complete)
    if whole and not template.noisy:
        return Likelihood(gaussian.complete, missing.static_density)
    # Complete rows are taken in any case; with noise they need a pattern of their own.
    patterns = _patterns(template, x, static, with_complete=template.noisy)
    if template.states:
        return _categorical(template, patterns, x.shape[1])
    if len(patterns) > PATTERNS:
        return anything(template)
    return Likelihood(functools.partial(missing.by_pattern, patterns=patterns), missing.static_density)


def log_likelihood(template: Template, parameters: Values, x: Tensor, static: Tensor) -> Tensor:
    """Log-likelihood of every row at every draw, nats.

    Args:
        template: The template.
        parameters: Latent site -> ``(S, *shape)``.
        x: Sequences, NaN where missing, shape ``(rows, T, V)``.
        static: Static values, NaN where missing, shape ``(rows, V_s)``.

    Returns:
        Shape ``(S, rows)``.

    Raises:
        ValueError: A categorical sequence has too many joint states of missing entries.
    """
    missing = bool(x.isnan().any() or static.isnan().any())
    if template.states and missing and _joint_states(template) > FEW_STATES:
        log = vmap(lambda values: categorical.tables(template, values))(parameters)
        patterns = _patterns(template, x, static, with_complete=True)
        if len(patterns) > PATTERNS or _frontier(template, patterns, x.shape[1]) > FRONTIER:
            return messages.log_likelihood(template, log, x, static)
        of_static = vmap(lambda values: categorical.static_forward(template, values, static))(parameters)
        return of_static + elimination.by_group(template, log, x, static, patterns=patterns)
    sequences, of_static = chosen(template, x, static)

    def single(values: Values) -> Tensor:
        total = sequences(template, values, x, static)
        return total + of_static(template, values, static) if template.static else total

    width = 1 if sequences in (gaussian.complete, categorical.complete) else 16
    return vmap(single, chunk_size=max(1, CELLS // (width * x.numel())))(parameters)


def _patterns(template: Template, x: Tensor, static: Tensor, *, with_complete: bool) -> tuple[tuple[int, ...], ...]:
    seen = ~gaussian.entries(template, x, static).isnan()
    seen = torch.cat([seen, torch.ones_like(seen[:1])]) if with_complete else seen[~seen.all(1)]
    return tuple(tuple(pattern.nonzero()[:, 0].tolist()) for pattern in torch.unique(seen, dim=0))


def _categorical(template: Template, patterns: tuple[tuple[int, ...], ...], slices: int) -> Likelihood:
    few = len(patterns) <= CATEGORICAL_PATTERNS
    most = _frontier(template, patterns, slices) if few else 0
    joint = _joint_states(template)
    if joint > FEW_STATES and few and most <= FRONTIER:
        sequences = functools.partial(elimination.by_pattern, patterns=patterns)
        return Likelihood(sequences, categorical.static_forward)
    if joint <= categorical.JOINT_STATES:
        return anything(template)
    found = f"{most:,} joint states of missing entries at once, and a task sums over {FRONTIER:,}"
    if not few:
        found = f"{len(patterns):,} patterns of missing entries, and a task tells {CATEGORICAL_PATTERNS} apart"
    raise ValueError(f"dbn: these rows have {found}: use gibbs(), or complete rows.")


def _frontier(template: Template, patterns: tuple[tuple[int, ...], ...], slices: int) -> int:
    return max(elimination.largest(template, slices, pattern) for pattern in patterns)


def _joint_states(template: Template) -> int:
    return math.prod(template.states.values())
