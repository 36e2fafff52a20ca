"""Simulated rows, many draws at once where a model's samplers can be batched."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch
from torch import Tensor
from torch.func import vmap

from bayesdd.data.columns import Columns
from bayesdd.task.program import running

CELLS = 2**20  # draws x rows simulated at once


def simulated(
    single: Callable[[Columns, Columns], Columns], rows: Columns, values: dict[str, Tensor], seed: int, backend: str
) -> Columns:
    """Observed sites simulated at every draw, see ``Task.simulate``; ``single`` is the same at one draw."""
    chunk = max(1, CELLS // len(next(iter(rows.values()), "1")))
    with warnings.catch_warnings(), running(), torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        if backend != "loop":
            try:
                # torch.binomial's own, of whole trials with batched probabilities; the draws are right.
                warnings.filterwarnings("ignore", "An output with one or more elements was resized", UserWarning)
                batched = vmap(single, in_dims=(0, None), randomness="different", chunk_size=chunk)
                found: Columns = batched(values, rows)
                return found
            except Exception:  # vmap refuses a sampler, by errors of many types: draw by draw, which is slower
                torch.manual_seed(seed)
        count = len(next(iter(values.values())))
        return stacked([single({name: value[i] for name, value in values.items()}, rows) for i in range(count)])


def stacked(draws: list[Columns]) -> Columns:
    """One value of every name a draw -> name -> ``(S, ...)``."""
    return {name: torch.stack([draw[name] for draw in draws]) for name in draws[0]}
