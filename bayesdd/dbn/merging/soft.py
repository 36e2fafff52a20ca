r"""Complete categorical rows with a given posterior: soft categories.

The posterior given complete rows is a product of Dirichlets, so that the forward KL needs the means
:math:`E_p[\log\theta]` only:

.. math:: \mathrm{KL}(p, p_U) = \text{const} + \sum_r \Bigl\{ \sum_k \log\Gamma(\alpha_{rk})
          - \log\Gamma\Bigl(\sum_k \alpha_{rk}\Bigr) - \sum_k (\alpha_{rk} - 1) E_p[\log\theta_{rk}] \Bigr\}, \quad
          \alpha = \alpha_0 + c(U)

over the rows r of all tables. An entry of a soft row is a distribution over its states, and c its expected counts: a
product over the family's members. Closed form, no particles.

Under L-BFGS alone entries harden early and then have no gradient. Gauss-Newton steps on the counts therefore come
first, with residuals :math:`(c - c^*) / \sqrt{2 \alpha^*}` from the best Dirichlets' parameters :math:`\alpha^*`: the
divergence to second order.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from bayesdd.dbn.inference.pooling import Pooled
from bayesdd.dbn.likelihood.categorical import expected_counts
from bayesdd.dbn.likelihood.parameters import simulated
from bayesdd.dbn.template.template import Template
from bayesdd.distillation.problem import SMALLEST_WEIGHT
from bayesdd.numerics.levenberg_marquardt import least_squares
from bayesdd.numerics.optimise import lbfgs
from bayesdd.numerics.refusal import WrongType

ITERATIONS = 400
FIRST = 1.5  # logit of a simulated state
COUNTED, LONGEST = 12, 2.0  # Gauss-Newton steps on the counts, and the most that one changes a logit
MOST_CELLS = 2000  # above, those steps cost too much: L-BFGS is restarted from softened rows instead
REHEATS, WARM = 5, 2.5  # most restarts, and the largest logit that they begin with
GAIN = 0.02  # share of the excess that a restart must gain for another to follow


class Dirichlets:
    """The forward KL of a posterior of tables to the Dirichlets that counts give.

    Args:
        template: The categorical template.
        logs: E[log theta] of all cells, side by side.

    Attributes:
        best: Parameters of the best Dirichlets, ``(cells,)``.
        least: Their cross entropy, nats.
    """

    def __init__(self, template: Template, logs: Tensor) -> None:
        self.template, self.logs = template, logs
        widths = [shape[-1] for shape in template.sites.values() for _ in range(math.prod(shape[:-1]))]
        self.row = torch.repeat_interleave(torch.arange(len(widths)), torch.tensor(widths))
        self.rows = len(widths)
        start = torch.zeros_like(logs)
        self.best = lbfgs(lambda v: self._cross_entropy(v.exp()), start, 500, stalled=0.0)[0].exp()
        self.least = float(self._cross_entropy(self.best))

    def excess(self, counts: Tensor) -> Tensor:
        """Nats above the best Dirichlets, of counts ``(cells,)`` of rows."""
        return self._cross_entropy(self.template.pseudo_count + counts) - self.least

    def _cross_entropy(self, alpha: Tensor) -> Tensor:
        total = alpha.new_zeros(self.rows).index_add(0, self.row, alpha)
        return torch.lgamma(alpha).sum() - torch.lgamma(total).sum() - ((alpha - 1) * self.logs).sum()


def soft_rows(
    full: Pooled, size: int, slices: int, *, seed: int, equal_weights: bool
) -> tuple[Tensor, Tensor, Tensor, float]:
    """Soft rows whose posterior is closest to the given one; K is the largest number of states.

    They start from simulated rows: of the posterior only E[log theta] and the mean tables are used, no row of a source.

    Returns:
        Probabilities ``(M, T, V, K)`` and ``(M, V_s, K)``, 0 for states that a variable does not have; weights
        ``(M,)``; and the forward KL above that of the best Dirichlets, nats.
    """
    if not isinstance(full.statistics, Tensor):
        raise WrongType("soft_rows is for categorical templates; use complete_rows.")
    goal = Dirichlets(full.template, full.statistics)
    problem = _Problem(goal, size, slices, equal_weights)
    vector, counted = problem.start(full, seed), len(goal.logs) <= MOST_CELLS
    if counted:
        vector, _ = least_squares(problem.residuals, vector, COUNTED, enough=1e-3, longest=LONGEST, slopes=False)
    vector, excess = lbfgs(problem.excess, vector, ITERATIONS)
    used = 1 if equal_weights else size
    for _ in range(0 if counted else REHEATS):
        warm = torch.cat([vector[:-used].clamp(-WARM, WARM), vector[-used:]])
        again, value = lbfgs(problem.excess, warm, ITERATIONS)
        gained = value < excess * (1 - GAIN)
        if value < excess:
            vector, excess = again, value
        if not gained:
            break
    return *problem.rows(vector), excess


@dataclass(frozen=True, eq=False)
class _Problem:
    """Logits of all entries, then log weights, as one flat vector."""

    goal: Dirichlets
    size: int
    slices: int
    equal_weights: bool

    @property
    def possible(self) -> Tensor:
        """Which of K states each variable has, static ones last: ``(V + V_s, K)``."""
        template = self.goal.template
        states = torch.tensor([template.states[name] for name in template.variables + template.static])
        return torch.arange(int(states.max())) < states[:, None]

    def start(self, full: Pooled, seed: int) -> Tensor:
        """Rows simulated at the posterior mean, softened; each weighted N / M."""
        x, static = simulated(full.template, full.draws, self.size, self.slices, seed)
        states = torch.cat([x.flatten(1), static], 1)
        logits = FIRST * torch.nn.functional.one_hot(states, self.possible.shape[1]).double()
        weight = torch.full((1 if self.equal_weights else self.size,), math.log(full.count / self.size)).double()
        return torch.cat([logits.flatten(), weight])

    def rows(self, vector: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Soft rows and weights."""
        template, states = self.goal.template, self.possible.shape[1]
        moving, fixed = len(template.variables), len(template.static)
        used = self.size * (self.slices * moving + fixed) * states
        logits = vector[:used].reshape(self.size, -1, states)
        x = logits[:, : self.slices * moving].unflatten(1, (self.slices, moving))
        x = x.masked_fill(~self.possible[:moving], -math.inf).softmax(-1)
        static = logits[:, self.slices * moving :].masked_fill(~self.possible[moving:], -math.inf).softmax(-1)
        return x, static, vector[used:].exp().clamp_min(SMALLEST_WEIGHT).expand(self.size)

    def residuals(self, vector: Tensor) -> Tensor:
        """Counts less those of the best Dirichlets, ``(cells,)``: the sum of their squares is nats to second order."""
        wanted = (self.goal.best - self.goal.template.pseudo_count).clamp_min(0)
        counts = expected_counts(self.goal.template, *self.rows(vector))
        return (counts - wanted) / (2 * self.goal.best).sqrt()

    def excess(self, vector: Tensor) -> Tensor:
        return self.goal.excess(expected_counts(self.goal.template, *self.rows(vector)))
