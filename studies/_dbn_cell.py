"""One cell of ``dbn_merge``: a simulated merge of one kind, number of slices and seed, everything measured on it."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from bayesdd import Distilled
from models.dbn_complete import complete_rows
from models.dbn_federated import federated, united_draws
from models.dbn_gaussian import entries
from models.dbn_merge import harden, merge
from models.dbn_pooled import Pooled, pooled, predictive
from models.dbn_quadratic import Joint, moments
from models.dbn_scores import bdeu, bge
from models.dbn_search import learn, recovered
from models.dbn_source import gathered
from models.dbn_template import Template
from studies import _dbn_baselines as baselines
from studies._dbn_cases import Problem, categorical, gaussian

JUDGED = 250  # draws of a posterior that predict the test sequences


@dataclass(frozen=True)
class Settings:
    """How large a cell is.

    Attributes:
        sizes: Numbers M of rows.
        draws: Draws of the joint posterior.
        rows: Sequences of each linear-Gaussian source; four times as many in the cells ``large``.
        sources: Number K of linear-Gaussian sources.
        hidden: Variables that each hides.
        noise: Standard deviation of their noise.
        states_rows: Sequences of each categorical source.
        states_variables: Variables of the categorical sources.
        steps: Steps of the perturbation algorithm.
        test: Test sequences.
        union_rows: Rows of each source's own distilled set.
        rounds: Numbers of rounds of common draws.
    """

    sizes: tuple[int, ...] = (1, 2, 5, 10, 20, 50, 100)
    draws: int = 1000
    rows: int = 100
    sources: int = 4
    hidden: int = 2
    noise: float = 0.3
    states_rows: int = 300
    states_variables: int = 10
    steps: int = 200
    test: int = 1000
    union_rows: int = 25
    rounds: tuple[int, ...] = (1, 3)

    @property
    def stamp(self) -> dict[str, Any]:
        """As a cell's file holds it."""
        return asdict(self)


@dataclass(eq=False)
class Records:
    """What a cell measures: one record a method, number of rows and structure.

    Attributes:
        problem: The merge.
        test: Test sequences.
        found: The records: nats a sequence of the posterior predictive and at the posterior mean, edges.
    """

    problem: Problem
    test: Tensor
    found: list[dict[str, Any]] = field(default_factory=list)

    def add(
        self, method: str, size: int, structure: str, template: Template, draws: dict[str, Tensor], **more: float
    ) -> None:
        """Judges draws ``(S, *shape)``."""
        mean = {site: draws[site].mean(0, keepdim=True) for site in template.sites}
        few = {site: draws[site][:: max(1, len(draws[site]) // JUDGED)][:JUDGED] for site in template.sites}
        self.found.append(
            {"method": method, "M": size, "structure": structure}
            | {"predictive": float(predictive(template, few, {"x": self.test}).mean())}
            | {"plugin": float(template.log_likelihood(mean, {"x": self.test}).mean())}
            | more
        )

    def rows(
        self, method: str, size: int, x: Tensor, weight: Tensor | None = None, *, learned: bool, **more: float
    ) -> None:
        """Judges complete rows by their exact posterior, under the true edges or those learned from the rows."""
        template, score = self.problem.template, bdeu if self.problem.template.states else bge
        if learned:
            template = learn(template, {"x": x}, weight, score=score)
            more = more | recovered(template, self.problem.template)._asdict()
        draws = template.posterior({"x": x}, weight).draw(JUDGED, seed=0)
        self.add(method, size, "learned" if learned else "given", template, draws, **more)


def measure(kind: str, slices: int, seed: int, settings: Settings) -> dict[str, Any]:
    """Measures one cell.

    Args:
        kind: One of ``KINDS``.
        slices: Slices T.
        seed: Seed of everything.
        settings: Sizes.

    Returns:
        ``records`` and ``seconds``.
    """
    begin = time.process_time()
    torch.set_num_threads(1)
    with warnings.catch_warnings():
        # Pairs that no source sees together are part of the setting; R-hats are in the records.
        warnings.simplefilter("ignore", UserWarning)
        records = KINDS[kind](slices, seed, settings)
    return {"records": records.found, "seconds": time.process_time() - begin}


def _given(slices: int, seed: int, s: Settings) -> Records:
    """Edges given: distilled rows, clean subsamples, the ceiling and the complete clean set."""
    records = _problem(slices, seed, s, s.rows)
    full = _ceiling(records, s, seed, "given")
    for size in s.sizes:
        # One and two rows hold no first slice: fewer settings tell that, and they take longest.
        if size >= 5 or slices in (5, 10):
            records.rows("distilled", size, *_distilled(full, size, seed), learned=False)
        records.rows("clean subsample", size, baselines.subsample(records.problem, size), learned=False)
    return records


def _learned(slices: int, seed: int, s: Settings) -> Records:
    """The same with edges learned from each dataset."""
    records = _problem(slices, seed, s, s.rows)
    full = _ceiling(records, s, seed, "learned")
    for size in s.sizes:
        # Under all edges five rows hold no first slice of six variables.
        if size >= 10 or (size, slices) == (5, 5):
            records.rows("distilled", size, *_distilled(full, size, seed), learned=True)
        records.rows("clean subsample", size, baselines.subsample(records.problem, size), learned=True)
    records.rows("complete clean set", 0, records.problem.clean, learned=True)
    return records


def _large(slices: int, seed: int, s: Settings) -> Records:
    """Sources four times as large."""
    records = _problem(slices, seed, s, 4 * s.rows)
    full = _ceiling(records, s, seed, "given")
    for size in (size for size in s.sizes if size in (10, 100)):
        records.rows("distilled", size, *_distilled(full, size, seed), learned=False)
    return records


def _baselines(slices: int, seed: int, s: Settings) -> Records:
    """Other ways to learn from incomplete, noisy sources, and the course of two optimisations."""
    records = _problem(slices, seed, s, s.rows)
    problem, template = records.problem, records.problem.template
    full = _ceiling(records, s, seed, "given")
    noiseless = [replace(source, noise=0.0) for source in problem.sources]
    plain = pooled(template, noiseless, draws=s.draws, seed=seed)
    records.add("augmentation, noise ignored", 0, "given", template, plain.draws)
    records.add("available moments", 0, "given", template, baselines.available(problem).draw(JUDGED, seed))
    for learned in (False, True):
        records.rows("iterative imputation", 0, baselines.imputed(problem, seed=seed), learned=learned)
    every = max(1, s.steps // 10)
    for size in (size for size in s.sizes if size in (10, 50)):
        for step, x in enumerate(baselines.perturbed(problem, size, seed=seed, iterations=s.steps), start=1):
            if step % every == 0:
                records.rows("perturbation", size, x, learned=False, step=step)
        records.rows("perturbation", size, x, learned=True, step=step)
        for steps in (1, 3, 10, 30, 100, 300):
            found = complete_rows(full, size, slices, seed=seed, equal_weights=False, iterations=steps)
            records.rows("distilled", size, found[0], found[2], learned=False, step=steps)
    return records


def _categorical(slices: int, seed: int, s: Settings) -> Records:
    """Categorical sources that see every family whole somewhere."""
    count, hidden = s.states_variables, max(1, s.states_variables * 3 // 10)
    problem = categorical(seed=seed, slices=slices, rows=s.states_rows, variables=count, hidden=hidden)
    records = Records(problem, problem.test[: s.test])
    full = _ceiling(records, s, seed, "given")
    sizes = [size for size in s.sizes if size >= 10]
    for size in (*sizes, s.states_rows):
        records.rows("clean subsample", size, baselines.subsample(problem, size), learned=False)
    for size in sizes:
        found = _merged(full, size, seed)
        records.rows("distilled", size, found.data["x"], found.weight, learned=False)
        if size in (10, 50):
            found = harden(full, found, size=size, seed=seed)
            records.rows("distilled, hard states", size, found.data["x"], found.weight, learned=False)
    records.add("available counts", 0, "given", problem.template, baselines.available(problem).draw(JUDGED, seed))
    records.rows("iterative imputation", 0, baselines.imputed(problem, seed=seed), learned=False)
    return records


def _coverage(slices: int, seed: int, s: Settings) -> Records:
    """Whether central 90% intervals of the distilled posterior hold the true parameters."""
    problem = gaussian(seed=seed, slices=slices, rows=s.rows, variables=4, hidden=1, sources=s.sources, noise=s.noise)
    records = Records(problem, problem.test[: s.test])
    full = pooled(problem.template, problem.sources, draws=s.draws, seed=seed)
    x, weight = _distilled(full, 20, seed)
    of_rows = problem.template.posterior({"x": x}, weight).draw(2000, seed=seed)
    for method, draws in (("all sources", full.draws), ("distilled", of_rows)):
        inside = total = 0
        for site, truth in problem.truth.items():
            low, high = torch.quantile(draws[site], torch.tensor([0.05, 0.95], dtype=torch.float64), 0)
            inside += int(((low <= truth) & (truth <= high)).sum())
            total += truth.numel()
        records.found.append({"method": method, "M": 20, "structure": "given", "inside": inside, "of": total})
    return records


def _union(slices: int, seed: int, s: Settings) -> Records:
    """Sets that the sources distilled where their rows lie, united; one and more rounds of common draws."""
    records = _problem(slices, seed, s, s.rows)
    template, sources = records.problem.template, records.problem.sources
    rows = gathered(template, sources)
    for rounds in s.rounds:
        found = federated(template, sources, s.union_rows, rounds=rounds, seed=seed)
        flat = entries(template, found.data["x"], found.data["x"].new_zeros(len(found), 0))
        draws, log_weight = united_draws(template, [(flat, found.weight)], slices, draws=2000, seed=seed + 77)
        # Fresh draws of the union's posterior; both log-likelihoods there give the KL, with nothing else in common.
        joint = Joint.of(template, draws, slices)
        full = [
            joint.log_likelihood(replace(template, noise=source.noise), entries(template, *own))
            for source, own in zip(sources, rows, strict=True)
        ]
        own = [joint.coefficients(template, at) @ moments(y, w) for at, y, w in _weighted(flat, found.weight)]
        kl, error = _reverse_kl(torch.stack(full).sum(0) - torch.stack(own).sum(0), log_weight)
        generator = torch.Generator().manual_seed(seed)
        even = torch.multinomial(log_weight.exp(), len(log_weight), replacement=True, generator=generator)
        picked = {site: value[even] for site, value in draws.items()}
        records.add("union", len(found), "given", template, picked, rounds=rounds, kl_reverse=kl, kl_reverse_se=error)
    return records


def _weighted(flat: Tensor, weight: Tensor) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Pattern by pattern: places of the entries seen, the rows that have them, their weights."""
    kinds, which = torch.unique(~flat.isnan(), dim=0, return_inverse=True)
    places = [kind.nonzero()[:, 0] for kind in kinds]
    return [(at, flat[which == k][:, at], weight[which == k]) for k, at in enumerate(places)]


def _reverse_kl(log_ratio: Tensor, log_weight: Tensor, batches: int = 8) -> tuple[float, float]:
    """KL from draws of the distilled posterior and its standard error by batches (chains stand one after the other)."""
    parts = zip(log_ratio.tensor_split(batches), log_weight.tensor_split(batches), strict=True)

    def kl(ratio: Tensor, logs: Tensor) -> float:
        logs = logs - logs.logsumexp(0)
        return float((ratio + logs).logsumexp(0) - logs.exp() @ ratio)

    each = torch.tensor([kl(ratio, logs) for ratio, logs in parts])
    return kl(log_ratio, log_weight), float(each.std() / batches**0.5)


KINDS: dict[str, Callable[[int, int, Settings], Records]] = {
    "given": _given,
    "learned": _learned,
    "large": _large,
    "baselines": _baselines,
    "categorical": _categorical,
    "union": _union,
    "coverage": _coverage,
}


def _problem(slices: int, seed: int, s: Settings, rows: int) -> Records:
    problem = gaussian(seed=seed, slices=slices, rows=rows, sources=s.sources, hidden=s.hidden, noise=s.noise)
    return Records(problem, problem.test[: s.test])


def _ceiling(records: Records, s: Settings, seed: int, structure: str) -> Pooled:
    """The joint posterior of all sources, judged; with it the truth and the complete clean set."""
    problem = records.problem
    template = problem.open if structure == "learned" else problem.template
    full = pooled(template, problem.sources, draws=s.draws, seed=seed)
    if structure == "given":
        records.add("truth", 0, structure, template, {site: value[None] for site, value in problem.truth.items()})
        records.rows("complete clean set", 0, problem.clean, learned=False)
    method = "all sources" if structure == "given" else "all sources, all edges"
    records.add(method, 0, structure, template, full.draws, rhat=full.rhat)
    return full


def _distilled(full: Pooled, size: int, seed: int) -> tuple[Tensor, Tensor]:
    """Complete rows and weights."""
    found = _merged(full, size, seed)
    return found.data["x"], found.weight


def _merged(full: Pooled, size: int, seed: int) -> Distilled:
    return merge(full.template, full.sources, size=size, seed=seed, complete=True, full=full)
