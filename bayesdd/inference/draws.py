"""What every inference method returns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Draws:
    """Posterior draws in unconstrained space.

    Attributes:
        values: Shape ``(chains, draws, P)``.
        log_weight: Importance log weights ``(chains, draws)``, not normalised; None if the draws are exact.
        stats: Sampler statistics, name -> ``(chains, draws)`` (names as in ArviZ: ``diverging``, ``energy``, ...).
    """

    values: Tensor
    log_weight: Tensor | None = None
    stats: dict[str, Tensor] = field(default_factory=dict)

    @property
    def flat(self) -> Tensor:
        """All draws, shape ``(chains * draws, P)``."""
        return self.values.flatten(0, 1)

    @property
    def flat_log_weight(self) -> Tensor:
        """Importance log weights of all draws, zero if they are exact, ``(chains * draws,)``."""
        return self.values.new_zeros(len(self.flat)) if self.log_weight is None else self.log_weight.flatten()


def collected(step: Callable[[], dict[str, Tensor]], where: Callable[[], Tensor], draws: int, thin: int) -> Draws:
    """Draws of chains that move together, the last of every ``thin`` transitions.

    ``step`` makes a transition of all chains and returns statistics, name -> ``(chains,)``; ``where`` returns the
    unconstrained points ``(chains, P)`` at which they then are.
    """
    kept: list[Tensor] = []
    stats: dict[str, list[Tensor]] = {}
    for _ in range(draws):
        for _ in range(thin - 1):
            step()
        record = step()
        kept.append(where())
        for name, value in record.items():
            stats.setdefault(name, []).append(value)
    return Draws(torch.stack(kept, 1), None, {name: torch.stack(value, 1) for name, value in stats.items()})
