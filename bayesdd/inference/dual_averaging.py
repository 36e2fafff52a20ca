"""Step sizes by dual averaging: they are adapted until the mean acceptance probability is as wanted.

Source: Hoffman & Gelman, "The No-U-Turn sampler", JMLR 2014, section 3.2.
"""

from __future__ import annotations

import math

DELAY, FORGETTING = 10, 0.75  # t_0 and kappa of the paper


class DualAveraging:
    """A step size under adaptation.

    Args:
        size: The first step size; the attribute is that of the next transition.
        target: Mean acceptance probability that is wanted.
        longest: Most that a step may be.
        drawn_to: Size towards which the adaptation is shrunk (exp(mu) of the paper).
        shrinkage: Gamma of the paper: the smaller, the larger the first changes.
    """

    def __init__(self, size: float, *, target: float, longest: float, drawn_to: float, shrinkage: float) -> None:
        self.size, self.target, self.longest, self.shrinkage = size, target, longest, shrinkage
        self._anchor = math.log(drawn_to)
        self._count, self._error, self._log_average = 0, 0.0, 0.0

    def update(self, accepted: float) -> None:
        """Takes in the mean acceptance probability of a transition."""
        self._count += 1
        blend = 1.0 / (self._count + DELAY)
        self._error = (1 - blend) * self._error + blend * (self.target - accepted)
        log_size = self._anchor - math.sqrt(self._count) / self.shrinkage * self._error
        fade = self._count**-FORGETTING
        self._log_average = fade * log_size + (1 - fade) * self._log_average
        self.size = min(math.exp(log_size), self.longest)

    def end(self) -> None:
        """Ends the adaptation: from now on the averaged size."""
        if self._count:
            self.size = min(math.exp(self._log_average), self.longest)
