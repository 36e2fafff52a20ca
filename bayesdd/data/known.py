"""What is learnt of rows while they are read block by block."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from bayesdd.data.columns import Columns


@dataclass(eq=False)
class Known:
    """What was learnt so far.

    Attributes:
        state: That of the medium when the rows were last known to be the same.
        seen: Spans of rows, first and past the last, that were checked against the model.
        digest: Stamp of all rows; empty until it was asked for.
        kept: Span of rows -> its columns as they were read, as far as there is room.
        length: Of the spans that are kept.
    """

    state: tuple[int, ...]
    seen: set[tuple[int, int]] = field(default_factory=set)
    digest: str = ""
    kept: dict[tuple[int, int], Columns] = field(default_factory=dict)
    length: int = 0

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "kept": {}}  # another process reads its own

    def unseen(self, start: int, stop: int) -> bool:
        """Whether some of these rows were not checked before; from now on they were."""
        if any(low <= start and stop <= high for low, high in self.seen):
            return False
        touching = {span for span in self.seen if span[0] <= stop and start <= span[1]} | {(start, stop)}
        self.seen.difference_update(touching)
        self.seen.add((min(low for low, _ in touching), max(high for _, high in touching)))
        return True

    def cut(self, length: int) -> None:
        """A pass begins that reads spans of so many rows: kept ones of another length would only take room."""
        if length != self.length:
            self.kept.clear()
            self.length = length

    def keep(self, span: tuple[int, int], columns: Columns, most: int) -> None:
        """Keeps the columns of a span, unless all that is kept would then take more bytes than ``most``."""
        if sum(column.nbytes for some in (*self.kept.values(), columns) for column in some.values()) <= most:
            self.kept[span] = columns
