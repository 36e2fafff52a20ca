"""Courses that end: after the terminal variable has left its first state nothing more is seen of a row.

While something is seen later a course goes on, whether or not its terminal variable was recorded; what was not seen by
the end of the rows is not known.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bayesdd.dbn.template.template import Template
from bayesdd.numerics.refusal import Refusal


def until_end(template: Template, x: Tensor) -> Tensor:
    """Sequences ``(rows, T, V)``: first states of the terminal variable are filled in, its end is kept once.

    Raises:
        Refusal: Something is seen after the end.
    """
    if template.terminal is None:
        return x
    place, x = template.variables.index(template.terminal), x.double()
    after = _after(x[..., place])
    end = torch.where(after & ~(x[..., place] > 0), x[..., place], torch.nan)
    later = torch.where(after[..., None], x, torch.nan)
    later[..., place] = end
    if bool((~later.isnan()).any()):
        row, t, v = (~later.isnan()).nonzero()[0].tolist()
        raise Refusal(
            f"Template: row {row} has {template.variables[v]!r} at slice {t}, after its end (terminal variable "
            f"{template.terminal!r}): correct the time of the end, or write NaN there."
        )
    x = cut(template, x)
    seen = (~x.isnan()).any(2)
    on = seen.flip(1).to(torch.int8).cummax(1).values.flip(1)[:, 1:] > 0  # something is seen in a later slice
    x[:, :-1, place] = torch.where(on & x[:, :-1, place].isnan(), 0.0, x[:, :-1, place])
    return x


def cut(template: Template, x: Tensor) -> Tensor:
    """Sequences without what stands after their ends, NaN there; whole without a terminal variable."""
    if template.terminal is None:
        return x
    x = x.double()
    return torch.where(_after(x[..., template.variables.index(template.terminal)])[..., None], torch.nan, x)


def _after(states: Tensor) -> Tensor:
    """Slices after the first that is not in the first state ``(rows, T)``."""
    ended = (states > 0).to(torch.int8).cumsum(1) > 0
    return torch.cat([torch.zeros_like(ended[:, :1]), ended[:, :-1]], 1)
