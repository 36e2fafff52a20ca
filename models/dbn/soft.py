r"""Complete categorical rows with a given posterior: soft categories, and their export to hard ones.

The posterior given complete rows is a product of Dirichlets, so that the forward KL needs the means
:math:`E_p[\log\theta]` only:

.. math:: \mathrm{KL}(p, p_U) = \text{const} + \sum_r \Bigl\{ \sum_k \log\Gamma(\alpha_{rk})
          - \log\Gamma\Bigl(\sum_k \alpha_{rk}\Bigr) - \sum_k (\alpha_{rk} - 1) E_p[\log\theta_{rk}] \Bigr\}, \quad
          \alpha = \alpha_0 + c(U)

over the rows r of all tables. An entry of a soft row is a distribution over its states, and c its expected counts: a
product over the family's members. Closed form, no particles. For tools that take hard states only, :func:`hardened`
draws hard rows from the soft ones, stratified, refits their weights and changes entries while that helps; what it costs
is told in nats.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from bayesdd.optimise import lbfgs
from bayesdd.problem import SMALLEST_WEIGHT
from models.dbn.categorical import expected_counts, shape
from models.dbn.pooled import Pooled
from models.dbn.template import Template

ITERATIONS = 900
# Entries that have become all but hard have no gradient left: softened, 50 rows went on from an excess of 138 nats to
# 70, 57, 51, 46 and 43 (ten variables of three states, ten slices).
REHEATS, REHEATED, WARM = 5, 400, 2.5  # turns, their iterations, logits at most
GAIN = 0.02  # of the excess, below which turns end
POLISH = 12  # turns of changing entries and refitting weights
TRIED = 0.1  # share of the entries that are changed at once, to begin with


@dataclass(frozen=True, eq=False)
class Soft:
    """M rows of soft categories; K the largest number of states, unused states have probability 0.

    Attributes:
        x: ``(M, T, V, K)``.
        static: ``(M, V_s, K)``.
        weight: ``(M,)``.
        excess: Forward KL above that of the best Dirichlets, nats.
    """

    x: Tensor
    static: Tensor
    weight: Tensor
    excess: float


class Dirichlets:
    """The forward KL of a posterior of tables to the Dirichlets that counts give.

    Args:
        template: The categorical template.
        logs: E[log theta] of all cells, side by side.
    """

    def __init__(self, template: Template, logs: Tensor) -> None:
        self.template, self.logs = template, logs
        sizes = [shape(template, family) for family in template.structure.families]
        widths = [size[-1] for size in sizes for _ in range(math.prod(size[:-1]))]
        self.row = torch.repeat_interleave(torch.arange(len(widths)), torch.tensor(widths))
        self.rows = len(widths)
        self.least = float(self._cross_entropy(self._best()))

    def excess(self, counts: Tensor) -> Tensor:
        """Nats above the best Dirichlets, of counts ``(cells,)`` of rows."""
        return self._cross_entropy(self.template.pseudo_count + counts) - self.least

    def _cross_entropy(self, alpha: Tensor) -> Tensor:
        total = alpha.new_zeros(self.rows).index_add(0, self.row, alpha)
        return torch.lgamma(alpha).sum() - torch.lgamma(total).sum() - ((alpha - 1) * self.logs).sum()

    def _best(self) -> Tensor:
        start = torch.zeros_like(self.logs)
        return lbfgs(lambda v: self._cross_entropy(v.exp()), start, 500, stalled=0.0)[0].exp()


def soft_rows(full: Pooled, size: int, slices: int, *, seed: int, equal_weights: bool) -> Soft:
    """Soft rows whose posterior is closest to the given one.

    Args:
        full: The posterior; of it only E[log theta] and the mean tables are used, no row of a source.
        size: Number M of rows.
        slices: Their number T of slices.
        seed: Seed of the starting rows, which are simulated.
        equal_weights: One common weight.
    """
    if not isinstance(full.statistics, Tensor):
        raise TypeError("soft_rows is for categorical templates; use complete_rows.")
    problem = _Problem(Dirichlets(full.template, full.statistics), size, slices, equal_weights)
    vector, excess = lbfgs(problem.excess, problem.start(full, seed), ITERATIONS)
    used = 1 if equal_weights else size
    for _ in range(REHEATS):
        warm = torch.cat([vector[:-used].clamp(-WARM, WARM), vector[-used:]])
        again, value = lbfgs(problem.excess, warm, REHEATED)
        gained = value < excess * (1 - GAIN)
        if value < excess:
            vector, excess = again, value
        if not gained:
            break
    x, static, weight = problem.rows(vector)
    return Soft(x, static, weight, excess)


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
        template = full.template
        data = template.sample(
            {site: value.mean(0) for site, value in full.draws.items()}, self.size, self.slices, seed
        )
        static = data.get("static", torch.zeros(self.size, 0, dtype=torch.int64))
        states = torch.cat([data["x"].flatten(1), static], 1)
        logits = 2.0 * torch.nn.functional.one_hot(states, self.possible.shape[1]).double()
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

    def excess(self, vector: Tensor) -> Tensor:
        return self.goal.excess(expected_counts(self.goal.template, *self.rows(vector)))


def hardened(full: Pooled, soft: Soft, size: int, *, seed: int) -> Soft:
    """Hard rows, as probabilities 0 and 1, whose posterior is close to that of soft ones.

    Args:
        full: The posterior.
        soft: Its soft rows.
        size: Number of hard rows, at least that of the soft ones; their counts are as coarse as their number.
        seed: Seed of the draws.
    """
    if not isinstance(full.statistics, Tensor):
        raise TypeError("hardened is for categorical templates.")
    generator, goal = torch.Generator().manual_seed(seed), Dirichlets(full.template, full.statistics)
    row = _copies(soft.weight, size)
    split = soft.x.shape[1] * soft.x.shape[2]
    every = torch.cat([soft.x.flatten(1, 2), soft.static], 1)
    picked = _stratified(every, row, generator)
    hard = torch.nn.functional.one_hot(picked, every.shape[2]).double()
    log_weight = (soft.weight / torch.bincount(row, minlength=len(every)))[row].log()

    def value(entries: Tensor, logs: Tensor) -> Tensor:
        x = entries[:, :split].unflatten(1, soft.x.shape[1:3])
        return goal.excess(expected_counts(full.template, x, entries[:, split:], logs.exp()))

    possible, least, tried = (every > 0).any(0), math.inf, int(TRIED * picked.numel())
    for _ in range(POLISH):
        log_weight, now = lbfgs(lambda v: value(hard, v), log_weight, 100)  # noqa: B023
        if not now < least - 1e-3:
            least = now
            break
        hard, least = _changed(hard, now, max(tried, 1), possible, lambda entries: value(entries, log_weight))  # noqa: B023
        tried //= 4
    return Soft(
        hard[:, :split].unflatten(1, soft.x.shape[1:3]),
        hard[:, split:],
        log_weight.exp().clamp_min(SMALLEST_WEIGHT),
        least,
    )


def _changed(
    hard: Tensor, least: float, tried: int, possible: Tensor, value: Callable[[Tensor], Tensor]
) -> tuple[Tensor, float]:
    """Changes the entries that promise most by their slope, as many at once as keep the promise."""
    while tried:
        entries = hard.clone().requires_grad_()
        (slope,) = torch.autograd.grad(value(entries), entries)
        gain = (slope - (slope * hard).sum(-1, keepdim=True)).masked_fill(~possible, math.inf)
        best, state = (part.flatten() for part in gain.min(-1))
        order = best.argsort()[:tried]
        order = order[best[order] < 0]
        trial = hard.clone().reshape(-1, hard.shape[2])
        trial[order] = torch.nn.functional.one_hot(state[order], hard.shape[2]).double()
        after = float(value(trial.reshape(hard.shape)))
        if after < least:
            hard, least = trial.reshape(hard.shape), after
        else:
            tried //= 2
    return hard, least


def _copies(weight: Tensor, size: int) -> Tensor:
    """Soft row of every hard one: each at least once, the heavier more often."""
    if size < len(weight):
        raise ValueError(f"hard rows are at least as many as soft ones: ask for {len(weight)} or more, not {size}.")
    share = (size - len(weight)) * weight / weight.sum()
    counts = 1 + share.floor().long()
    counts[torch.argsort(share.floor() - share)[: size - int(counts.sum())]] += 1
    return torch.repeat_interleave(torch.arange(len(weight)), counts)


def _stratified(every: Tensor, row: Tensor, generator: torch.Generator) -> Tensor:
    """States ``(rows, n)``: of the copies of a soft row, each entry's states come as often as their probability."""
    counts = torch.bincount(row, minlength=len(every))
    order = torch.rand(len(row), every.shape[1], generator=generator, dtype=torch.float64)
    # Ranks of random numbers within each row's copies: a random permutation for every entry.
    rank = (order + row[:, None]).argsort(0).argsort(0) - (counts.cumsum(0) - counts)[row][:, None]
    shift = torch.rand(len(every), every.shape[1], generator=generator, dtype=torch.float64)[row]
    level = (rank + shift) / counts[row][:, None]
    return (level[..., None] > every[row].cumsum(-1)).sum(-1).clamp_max(every.shape[2] - 1)
