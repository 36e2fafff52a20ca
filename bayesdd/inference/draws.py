"""What every inference method returns."""

from __future__ import annotations

from dataclasses import dataclass, field

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
