"""Free coordinates of synthetic rows, which the optimiser moves, and the way back to the user's columns.

Entries that move are mapped to the real line by their kind, then whitened jointly by the real rows' covariance: where
columns are nearly collinear, standardising alone leaves a KL a thousand times as large. Elements that are constant over
the real rows (an intercept column), missing entries and entries at an atom are no parameters.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bayesdd.data.columns import Columns
from bayesdd.task.kinds import Kind
from bayesdd.task.sides import Sides, sides

ROWS_FOR_COVARIANCE = 20_000
LARGEST_JOINT_WHITENING = 512
LOOKED_AT = 2**16  # rows in which most elements that vary do so; only the others are looked for in all rows


class Coordinates:
    """Maps a flat free vector to M synthetic rows and back.

    Args:
        real: The real rows, column -> ``(N, ...)``, on any device.
        kinds: Kind of each column.
        start: Starting rows, column -> ``(M, ...)``; also the source of fixed and constant entries and of NaN patterns.
        bounds: Upper bounds of bounded columns at the starting rows, column -> ``(M, ...)``.
        move: False keeps every row where it is (a weights-only coreset).
    """

    def __init__(
        self, real: Columns, kinds: dict[str, Kind], start: Columns, bounds: Columns, *, move: bool = True
    ) -> None:
        self.kinds, self.bounds = kinds, bounds
        self.size = len(next(iter(start.values())))
        self.start = {name: _stored(column, kinds[name]) for name, column in start.items()}
        self.free_masks: Columns = {}
        self.whitened: list[str] = []
        self.loose: list[str] = []
        self._element_masks: Columns = {}
        self._sides: dict[str, Sides | None] = {}
        for name, kind in kinds.items() if move else ():
            if kind.to_free is None or kind.from_free is None:
                continue
            mask = _varying(real[name], self.start[name], kind)
            if bool(mask.any()):
                self.start[name] = self.start[name].double()  # whole numbers that move are none any more
                beside = sides(kind, self.start[name], bounds.get(name))
                held = torch.isnan(self.start[name])
                self.free_masks[name] = mask & ~(held if beside is None else held | beside.held)
                self._element_masks[name] = mask.reshape(self.size, -1).any(0)
                self._sides[name] = beside
                (self.whitened if kind.whiten else self.loose).append(name)
        if self.whitened:
            device = next(iter(start.values())).device
            step = max(1, len(next(iter(real.values()))) // ROWS_FOR_COVARIANCE)
            self._fit_whitening({name: real[name][::step].to(device, torch.float64) for name in self.whitened})

    def _side_by_side(self, columns: Columns) -> Tensor:
        """Whitened columns' varying elements in free coordinates, side by side: shape ``(rows, D)``."""
        free = {name: self._to_free(name, columns[name]).reshape(len(columns[name]), -1) for name in self.whitened}
        return torch.cat([free[name][:, self._element_masks[name]] for name in free], 1)

    def _to_free(self, name: str, column: Tensor) -> Tensor:
        """Free coordinates of any rows' column, NaN where entries are missing or held."""
        kind, most = self.kinds[name], self.bounds.get(name)
        assert kind.to_free is not None
        own = kind.to_free(column / self._bound(name))
        beside = sides(kind, column, most)
        if beside is None:
            return own
        free = torch.where(beside.beside, beside.to_free(column), own)
        return free.masked_fill(beside.held, torch.nan)

    def _from_free(self, name: str, free: Tensor) -> Tensor:
        """The synthetic rows' column at its free coordinates ``(M, ...)``; entries that do not move as they started."""
        kind, beside, start = self.kinds[name], self._sides[name], self.start[name]
        assert kind.from_free is not None
        moved = kind.from_free(free) * self._bound(name)
        if beside is not None:
            moved = torch.where(beside.beside, beside.from_free(free), moved)
        return torch.where(self.free_masks[name], moved, start)

    def _fit_whitening(self, real: Columns) -> None:
        free = self._side_by_side(real)
        present = ~torch.isnan(free)
        count = present.sum(0).clamp_min(1)
        self.mean = torch.where(present, free, 0.0).sum(0) / count
        centred = torch.where(present, free - self.mean, 0.0)
        pairs = present.double().T @ present.double()
        covariance = centred.T @ centred / pairs.clamp_min(1)
        spread = covariance.diagonal()
        spread = torch.where(spread > 0, spread, 1.0)  # an element may vary only in rows that were left out
        if len(spread) > LARGEST_JOINT_WHITENING:
            self.factor, self.inverse = spread.sqrt().diag(), spread.rsqrt().diag()
            return
        correlation = covariance / (spread[:, None] * spread).sqrt()
        shrink = len(spread) / (len(spread) + float(count.min()))
        correlation = (1 - shrink) * correlation + shrink * torch.eye(len(spread), dtype=free.dtype, device=free.device)
        # Available-case correlations may be indefinite; exact collinearity is kept a little open so that rows can move.
        values, vectors = torch.linalg.eigh(correlation)
        root = values.clamp_min(1e-8).sqrt()
        self.factor = spread.sqrt()[:, None] * (vectors * root)
        # Not torch.linalg.solve: its LU fails on several threads from about 350 columns on.
        self.inverse = (vectors / root).T / spread.sqrt()

    @property
    def dim(self) -> int:
        """Number of free coordinates."""
        return self.free().numel()

    @property
    def moving(self) -> int:
        """Number of entries that move; of the probabilities of K classes one follows from the others."""
        return sum(
            int(mask.sum()) - (mask[..., 0].numel() if self.kinds[name].classes else 0)
            for name, mask in self.free_masks.items()
        )

    def by_row(self) -> list[Tensor]:
        """Places in the free vector of each coordinate of a row, ``(M,)`` each."""
        device = next(iter(self.start.values())).device
        widths = [len(self.mean)] if self.whitened else []
        widths += [self.start[name].numel() // self.size for name in self.loose]
        found, used = [], 0
        for width in widths:
            places = torch.arange(used, used + self.size * width, device=device)
            found += list(places.reshape(self.size, width).T)
            used += self.size * width
        return found

    def free(self) -> Tensor:
        """The starting rows as one flat free vector."""
        parts = []
        if self.whitened:
            centred = self._side_by_side(self.start) - self.mean
            parts.append((centred.masked_fill(torch.isnan(centred), 0.0) @ self.inverse.T).flatten())
        for name in self.loose:
            free = self._to_free(name, self.start[name])
            parts.append(free.masked_fill(torch.isnan(free), 0.0).flatten())
        example = next(iter(self.start.values()))
        return torch.cat(parts) if parts else torch.zeros(0, dtype=torch.float64, device=example.device)

    def rows(self, free: Tensor) -> Columns:
        """Synthetic rows at a free vector; differentiable. Soft columns come as class probabilities ``(M, K)``."""
        result = dict(self.start)
        used = 0
        if self.whitened:
            used = self.size * len(self.mean)
            values = self.mean + free[:used].reshape(self.size, -1) @ self.factor.T
            at = 0
            for name in self.whitened:
                start, columns = self.start[name], self._element_masks[name].nonzero()[:, 0]
                still = torch.zeros_like(start).reshape(self.size, -1)
                result[name] = self._from_free(
                    name, still.index_copy(1, columns, values[:, at : at + len(columns)]).reshape(start.shape)
                )
                at += len(columns)
        for name in self.loose:
            start = self.start[name]
            result[name] = self._from_free(name, free[used : used + start.numel()].reshape(start.shape))
            used += start.numel()
        return result

    def _bound(self, name: str) -> Tensor | float:
        return self.bounds[name] if self.kinds[name].bounded else 1.0


def _stored(column: Tensor, kind: Kind) -> Tensor:
    """Soft columns are held as probabilities; a probability of one is softened so that it can move."""
    if kind.classes and kind.to_free is not None and kind.from_free is not None:
        return kind.from_free(kind.to_free(column))
    return column


def _varying(real: Tensor, start: Tensor, kind: Kind) -> Tensor:
    """Which elements move: those that differ between real rows. Shape of ``start``."""
    if kind.classes:
        return torch.ones_like(start, dtype=torch.bool)
    seen = real.reshape(len(real), -1)
    found = _differ(seen[:LOOKED_AT])
    if len(seen) > LOOKED_AT and not bool(found.all()):
        found[~found] = _differ(seen[:, ~found])
    return found.reshape(real.shape[1:]).to(start.device).expand(start.shape)


def _differ(seen: Tensor) -> Tensor:
    """Which columns of ``(N, K)`` hold two different numbers."""
    low = torch.where(torch.isnan(seen), torch.inf, seen).amin(0)
    high = torch.where(torch.isnan(seen), -torch.inf, seen).amax(0)
    return high > low
