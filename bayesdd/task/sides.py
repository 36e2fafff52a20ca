"""Sides: between which bounds each entry of a column may move, where that depends on the element or on atoms.

An atom is a value at which the log-likelihood jumps (the zeros of a hurdle, a limit of detection). Entries there are
held; the others move between the atoms next to them, and within the bounds of their element.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bayesdd.task.kinds import Kind

NEAREST = 1e-10  # distance from a bound, in the column's units, at which an entry starts
MARGIN = 1e-3  # the same between two bounds, as a share of the distance between them: gradients stay alive


@dataclass(frozen=True, eq=False)
class Sides:
    """Bounds of every entry of a column, shape of the column each.

    Attributes:
        held: Entries that stay, at an atom.
        beside: Entries that are mapped by these bounds, not by the kind's own map.
        low: Bounds below, minus infinity where there is none.
        high: Bounds above.
    """

    held: Tensor
    beside: Tensor
    low: Tensor
    high: Tensor

    def to_free(self, value: Tensor) -> Tensor:
        """Entries to free coordinates: the logarithm of the distance from one bound, the logit between two."""
        low, high, below, above = self._finite()
        logit = torch.logit(((value - low) / (high - low).clamp_min(NEAREST)).clamp(MARGIN, 1 - MARGIN))
        one = torch.where(below, value - low, high - value).clamp_min(NEAREST).log()
        return torch.where(below & above, logit, torch.where(below | above, one, value))

    def from_free(self, free: Tensor) -> Tensor:
        """The inverse."""
        low, high, below, above = self._finite()
        one = torch.where((below ^ above) & ~self.held, free, 0.0).exp()
        one = torch.where(below, low + one, high - one)
        both = low + (high - low) * torch.sigmoid(free)
        return torch.where(below & above, both, torch.where(below | above, one, free))

    def _finite(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Bounds, 0 and 1 where there is none, so that no branch is infinite, and where they are."""
        below, above = torch.isfinite(self.low), torch.isfinite(self.high)
        return torch.where(below, self.low, 0.0), torch.where(above, self.high, 1.0), below, above


def sides(kind: Kind, column: Tensor, most: Tensor | None = None) -> Sides | None:
    """The sides of a column's entries; None where the kind's own map serves them all.

    Args:
        kind: Its kind.
        column: Shape ``(rows, ...)``, the column's units.
        most: Upper bounds of a bounded kind (Binomial's trials), shape of the column.
    """
    own = not isinstance(kind.low, tuple) and not isinstance(kind.high, tuple)
    if (own and not kind.atoms) or kind.to_free is None or kind.classes:
        return None
    flat = column.reshape(len(column), -1)
    low, high = (_of_elements(bound, flat).expand(flat.shape).clone() for bound in (kind.low, kind.high))
    if most is not None:
        high = torch.minimum(high, most.reshape(flat.shape))
    beside = (torch.isfinite(low) | torch.isfinite(high)) & (not own)
    held = torch.zeros_like(beside)
    for element, atom in kind.atoms:
        entries = flat[:, element]
        held[:, element] |= entries == atom
        beside[:, element] = True
        low[:, element] = torch.where(entries > atom, low[:, element].clamp_min(atom), low[:, element])
        high[:, element] = torch.where(entries < atom, high[:, element].clamp_max(atom), high[:, element])
    return Sides(*(part.reshape(column.shape) for part in (held, beside, low, high)))


def _of_elements(bound: float | tuple[float, ...], like: Tensor) -> Tensor:
    return torch.as_tensor(bound, dtype=like.dtype, device=like.device)
