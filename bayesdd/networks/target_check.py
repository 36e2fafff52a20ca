"""Checks of a target's predictive itself: rows certified against a target that is wrong are wrong with it."""

from __future__ import annotations

import math

from torch import Tensor

from bayesdd.data.accuracy import LEVEL, Z90

APART = 2.0  # between modes, in sds of each: between draws of one normal posterior it is about one
SURE = 3.0  # standard errors by which chance explains that fewer rows are held


def disagreement(values: Tensor) -> str:
    """What is said where C modes predict so differently that none of them admits it; ``(C, draws, K)``."""
    if len(values) == 1:
        return ""
    between, within = values.mean(1).var(0).mean().sqrt(), values.var(1).mean().sqrt()
    if not between > APART * within:
        return ""
    return f"its {len(values)} modes differ by {float(between / within):.2g} of the sds that each of them states"


def missed(mean: Tensor, sd: Tensor, outcome: Tensor) -> str:
    """What is said where 90 % intervals ``(N,)`` hold fewer rows held out than chance explains.

    ``sd`` includes the noise of an outcome.
    """
    count, share = len(outcome), held_of(mean, sd, outcome)
    least = LEVEL - SURE * math.sqrt(LEVEL * (1 - LEVEL) / count)
    return "" if share >= least else f"its 90% intervals hold {share:.0%} of {count} rows held out"


def held_of(mean: Tensor, sd: Tensor, outcome: Tensor) -> float:
    """Share of outcomes inside 90 % intervals, ``(N,)`` each."""
    return float(((outcome - mean).abs() <= Z90 * sd).double().mean())
