r"""Values of distilled rows stay within the range that sources have observed.

An optimum that leaves it is sought again in coordinates v that cannot,

.. math:: x = m + h \tanh \frac{v - m}{h},

m the middle of a range and h half its width: the identity near the middle, flat at its ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from bayesdd.dbn.likelihood.source import Source, joined
from bayesdd.dbn.template.template import Template

EDGE = 0.999  # share of half a range that a starting value may be away from its middle


@dataclass(frozen=True, eq=False)
class Ranges:
    """Least and greatest value of each variable, static ones first, parents first: ``(V_s + V,)``."""

    low: Tensor
    high: Tensor

    @classmethod
    def of(cls, template: Template, sources: Sequence[Source], names: Sequence[str] | None = None) -> Ranges:
        """As observed over all sources, in the numbers of their common scale; of some names, or of all variables."""
        measures, found = joined(template, sources)[1], []
        for name in template.structure.static_order + template.structure.order if names is None else names:
            known = measures[name]
            ends = (np.nan, np.nan) if known.low is None or known.high is None else (known.low, known.high)
            found.append(known.inside(np.array(ends)))
        low, high = torch.from_numpy(np.array(found)).mT.nan_to_num(nan=torch.inf)
        return cls(torch.where(low == torch.inf, -torch.inf, low), high)

    def entries(self, static: int, slices: int) -> Ranges:
        """Of all entries of a row of so many slices, the first ``static`` once: ``(n,)``."""
        return Ranges(*(torch.cat([end[:static], end[static:].tile(slices)]) for end in (self.low, self.high)))

    def left(self, values: Tensor) -> bool:
        """Whether a value ``(..., V)``, NaN where missing, lies outside."""
        slack = 1e-9 * (self.high - self.low).nan_to_num(posinf=0.0)
        return bool(((values < self.low - slack) | (values > self.high + slack)).any())

    def inside(self, free: Tensor) -> Tensor:
        """X of v; a variable without a range is free, one of a single value stays there."""
        middle, half, bounded = self._ends()
        return torch.where(bounded, middle + half * torch.tanh((free - middle) / half), free)

    def free(self, values: Tensor) -> Tensor:
        """V of x; values outside are moved to the edge."""
        middle, half, bounded = self._ends()
        share = ((values - middle) / half).clamp(-EDGE, EDGE)
        return torch.where(bounded, middle + half * torch.atanh(share), values)

    def _ends(self) -> tuple[Tensor, Tensor, Tensor]:
        bounded = self.low.isfinite() & self.high.isfinite()
        low, high = torch.where(bounded, self.low, -1.0), torch.where(bounded, self.high, 1.0)
        return (low + high) / 2, ((high - low) / 2).clamp_min(1e-9), bounded
