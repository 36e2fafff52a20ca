r"""Coreset MCMC: weights by stochastic gradients whose draws are the states of K chains that follow the coreset.

After every transition of the chains, whose target is the posterior of the current weights, the states serve as draws:

.. math::
    g = -\frac{1}{K - 1} \sum_k (v_k - \bar v)\, \Big(\Delta_k - \bar\Delta\Big), \qquad
    v_k = (l(\theta_k; z_m))_m, \qquad \Delta_k = \frac{N}{B} \sum_{n \in B} l(\theta_k; z_n) - w' v_k ,

and the weights take a step that needs no learning rate ("Hot DoG", :class:`Dog`), projected to be non-negative. Chains
run with the weights held until they are stationary ("hot start"). The last weights are returned, as by the authors.
The authors' kernel is a slice sampler; here it is HMC, all chains at once, in coordinates whitened by a Laplace fit of
the coreset posterior that is renewed now and then (the weights, and with them the target, go far). Cost an iteration:
K (M + B) log-likelihoods and about 3 K M gradients.

The authors run 25,000 to 200,000 iterations on batches of M to all rows.

Source: Chen & Campbell, "Coreset Markov chain Monte Carlo", AISTATS 2024; Chen, Huggins & Campbell, "Tuning-free
coreset Markov chain Monte Carlo", 2024 (the step and the hot start).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from bayesdd.baselines._parts import checked, rows_at, weighted_rows
from bayesdd.data.columns import Columns
from bayesdd.data.distilled import Distilled
from bayesdd.density.density import Density
from bayesdd.distillation.stratified import choose
from bayesdd.inference.mode import fit, newton, scattered
from bayesdd.numerics.gaussian import Gaussian
from bayesdd.numerics.refusal import Refusal
from bayesdd.task.task import Task

TARGET_ACCEPT = 0.8
GAIN = 0.05  # change of the log step size an iteration: the posterior that chains follow keeps moving
MOST_STEPS = 8  # leapfrog steps of a transition
REFIT = 50  # iterations between Laplace fits
CHECK = 30  # iterations between tests of stationarity


def coreset_mcmc(
    task: Task,
    size: int,
    *,
    seed: int,
    chains: int = 2,
    iterations: int = 5000,
    batch: int | None = None,
    warmup: int = 1000,
    radius: float = 1e-3,
    stratified: bool = True,
) -> Distilled:
    """Random rows with weights learned along Markov chains.

    Args:
        chains: Number K of chains, at least 2.
        iterations: Steps of the weights.
        batch: Real rows B a gradient, scanned in a random order; None for all.
        warmup: Most iterations with the weights held.
        radius: First step of a weight.
        stratified: Rows stratified over labels and fixed columns, if there are any, all with weight N / M to start with
            (the authors' choice for logistic regression); False for uniform rows.

    Raises:
        ValueError: Fewer than two chains.
    """
    size = checked(task, size)
    if chains < 2:
        raise Refusal(f"coreset_mcmc needs at least 2 chains, whose spread is its gradient, got {chains}.")
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(task.size, generator=generator)
    picked = choose(task.data, task.column_kinds, size, generator)[0] if stratified else order[:size]
    rows = rows_at(task, picked)
    weight = torch.full((size,), task.size / size, dtype=torch.float64)
    full = Density([(task, task.data, None)])
    states = Chains(task, rows, weight, chains, seed, generator)
    scan = order[torch.randperm(task.size, generator=generator)]

    def total(draws: Tensor, iteration: int) -> Tensor:
        """Full log-likelihood at draws, exact or from the next rows of the scan, ``(K,)``."""
        if batch is None or batch >= task.size:
            return full.sweep(draws)
        few = scan[(iteration * batch + torch.arange(batch)) % task.size]
        found = task.log_likelihood(rows_at(task, few), draws)
        return found.sum(1) * (task.size / batch)

    trace: list[Tensor] = []
    for iteration in range(1, warmup + 1):
        trace.append(states.step(weight))
        if iteration >= 3 * task.dim and iteration % CHECK == 0 and stationary(torch.stack(trace)):
            break
    dog = Dog(weight, radius)
    for iteration in range(iterations):
        states.step(weight)
        with torch.no_grad():
            own = task.log_likelihood(rows, states.position)
            off = total(states.position, iteration) - own @ weight
        slope = -(off - off.mean()) @ (own - own.mean(0)) / (chains - 1)
        weight = (weight - dog.step(weight, slope)).clamp_min(0.0)
    return weighted_rows(task, rows, weight, seed, "coreset_mcmc")


class Dog:
    r"""Distance over gradients, a coordinate at a time, smoothed as Adam is.

    With exponential averages :math:`\hat m` of the gradient (0.9) and :math:`\hat v` of its square (0.999), and
    :math:`\hat d` (0.9) of the largest distance from the start, all corrected for their zero start, step t is

    .. math:: \frac{\hat d_t}{\sqrt{t\, \hat v_t} + 10^{-8}}\, \hat m_t, \qquad \hat d_1 = \mathrm{radius}.
    """

    def __init__(self, start: Tensor, radius: float) -> None:
        self.start, self.radius, self.count = start, radius, 0
        self.mean, self.square, self.distance = (torch.zeros_like(start) for _ in range(3))

    def step(self, point: Tensor, gradient: Tensor) -> Tensor:
        """What to subtract from the point."""
        self.count += 1
        t = self.count
        self.mean = 0.9 * self.mean + 0.1 * gradient
        self.square = 0.999 * self.square + 0.001 * gradient**2
        far = torch.full_like(point, self.radius)
        if t > 1:
            self.distance = 0.9 * self.distance + 0.1 * torch.maximum((point - self.start).abs(), self.distance)
            far = self.distance / (1 - 0.9**t)
        length = far / ((t * self.square / (1 - 0.999**t)).sqrt() + 1e-8)
        return length * self.mean / (1 - 0.9**t)


def stationary(trace: Tensor) -> bool:
    """Whether log densities ``(iterations, K)`` have settled: their last two thirds agree in mean, by the median chain.

    Agree: within half the larger residual standard deviation about a straight line, the authors' rule.
    """
    third = -(-len(trace) // 3)
    parts = trace[-2 * third : -third], trace[-third:]
    line = torch.stack([torch.ones(third, dtype=trace.dtype), torch.arange(third, dtype=trace.dtype)], 1)
    axes = torch.linalg.qr(line)[0]
    spread = [((part - axes @ (axes.T @ part)) ** 2).sum(0).div(third - 2).sqrt() for part in parts]
    apart = (parts[0].mean(0) - parts[1].mean(0)).abs() / torch.maximum(*spread)
    return bool(apart.median() <= 0.5)


class Chains:
    """K chains of HMC whose target, the posterior of weighted rows, may change from step to step."""

    def __init__(
        self, task: Task, rows: Columns, weight: Tensor, count: int, seed: int, generator: torch.Generator
    ) -> None:
        self.task, self.rows, self.generator = task, rows, generator
        density = Density([(task, rows, weight)])
        self.gaussian: Gaussian | None = fit(density, seed=seed)
        self.factor = torch.eye(task.dim, dtype=torch.float64)
        if self.gaussian is None:
            self.position = scattered(density, count, seed)
        else:
            self.position = self.gaussian.draw(count, generator)
        self.size, self.age = task.dim**-0.25, 0

    def step(self, weight: Tensor) -> Tensor:
        """One transition of every chain; log density before it, nats, ``(K,)``."""
        if self.gaussian is not None and self.age % REFIT == 0:
            renewed = newton(Density([(self.task, self.rows, weight)]), self.gaussian.mean)
            self.gaussian = self.gaussian if renewed is None else renewed
            self.factor = self.gaussian.factor
        self.age += 1
        shape = self.position.shape
        size = self.size * (0.8 + 0.4 * float(torch.rand((), generator=self.generator)))
        steps = min(MOST_STEPS, max(1, round(math.pi / 2 / size)))
        momentum = torch.randn(shape, generator=self.generator, dtype=torch.float64)
        position = self.position
        before, slope = self.task.joint_gradient(self.rows, weight, position)
        energy, height = 0.5 * (momentum**2).sum(1) - before, before
        for _ in range(steps):
            momentum = momentum + 0.5 * size * slope @ self.factor
            position = position + size * momentum @ self.factor.T
            height, slope = self.task.joint_gradient(self.rows, weight, position)
            momentum = momentum + 0.5 * size * slope @ self.factor
        accept = torch.exp(energy - 0.5 * (momentum**2).sum(1) + height).clamp_max(1.0).nan_to_num(0.0)
        taken = torch.rand(shape[0], generator=self.generator, dtype=torch.float64) < accept
        self.position = torch.where(taken[:, None], position, self.position)
        self.size = min(1.5, self.size * math.exp(GAIN * (float(accept.mean()) - TARGET_ACCEPT)))
        return before
