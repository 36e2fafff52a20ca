"""What one would do with several incomplete sources without this project: datasets or draws to compare with.

* ``subsample``: the paper's D_sub, clean and fully observed sequences, which no source has.
* ``imputed``: every sequence laid out flat, its missing entries filled in by chained regressions.
* ``available``: moments, or counts, of the rows that have what is needed.
* ``perturbed``: the algorithm of the paper as far as it is published.

Data augmentation, the strongest, is the reference itself with the noise left out of the model (``cell.py``).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from bayesdd import dbn
from bayesdd.dbn import Template
from bayesdd.dbn.inference import Dirichlet, NormalInverseGamma, Posterior
from bayesdd.dbn.template.columns import groups
from bayesdd.dbn.template.structure import Family, Node
from studies.dbn_merge.cases import Problem

ITERATIONS, STEP, SIZE = 300, 0.02, 0.1  # of ``perturbed``, none of which the paper gives


def subsample(problem: Problem, size: int) -> Tensor:
    """Clean, complete sequences ``(size, T, V)``, dealt evenly from the sources' own."""
    parts = problem.clean.split(problem.sizes)
    every = torch.stack([part[: min(problem.sizes)] for part in parts], 1).flatten(0, 1)
    return every[:size]


def imputed(problem: Problem, *, seed: int, rounds: int = 5) -> Tensor:
    """All sources' sequences, missing entries filled in by scikit-learn's chained ridge regressions.

    A sequence is one flat row of T V entries: the tie of parameters over time is lost on it, as on its users. States
    are rounded.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.experimental import enable_iterative_imputer  # noqa: F401 (asked for by scikit-learn)
    from sklearn.impute import IterativeImputer

    flat = problem.seen.flatten(1).numpy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        filled = IterativeImputer(max_iter=rounds, sample_posterior=True, random_state=seed).fit_transform(flat)
    x = torch.as_tensor(filled).reshape(problem.seen.shape)
    if not problem.template.states:
        return x
    last = torch.tensor([problem.template.states[name] - 1 for name in problem.template.variables])
    return torch.minimum(x.round().clamp_min(0), last).long()


def available(problem: Problem) -> Posterior:
    """Families from the entries that are there.

    Linear-Gaussian: every second moment from the rows that have both variables, less the known variance of the noise;
    a pair that nobody saw counts as uncorrelated; negative directions are cut off. The sample's size is that of the
    least-seen pair of the family, at least its number of coefficients. Categorical: counts of the rows that have the
    whole family.
    """
    found: dict[str, NormalInverseGamma | Dirichlet] = {}
    static = torch.zeros(len(problem.seen), 0, dtype=torch.float64)
    for families, of in groups(problem.template, problem.seen, static):
        for family in families:
            nodes = [*family.parents, (family.variable, 0)]
            columns = torch.stack([of(node).flatten() for node in nodes], 1)
            fit = _counted if problem.template.states else _moments
            found[family.site] = fit(problem, family, nodes, columns)
    return Posterior(found)


def _counted(problem: Problem, family: Family, nodes: list[Node], columns: Tensor) -> Dirichlet:
    whole = columns[~columns.isnan().any(1)].long()
    sizes, index = problem.template.sites[family.site], torch.zeros(len(whole), dtype=torch.int64)
    for place, (name, _) in enumerate(nodes):
        index = index * problem.template.states[name] + whole[:, place]
    counts = torch.bincount(index, minlength=math.prod(sizes)).double().reshape(sizes)
    return Dirichlet(counts + problem.template.pseudo_count)


def _moments(problem: Problem, family: Family, nodes: list[Node], columns: Tensor) -> NormalInverseGamma:
    template, known = problem.template, (~columns.isnan()).double()
    filled = columns.nan_to_num()
    mean = filled.sum(0) / known.sum(0)
    away = (filled - mean) * known
    both = known.mT @ known
    covariance = (away.mT @ away) / both.clamp_min(1.0)
    covariance = covariance - problem.noise**2 * torch.eye(len(nodes), dtype=covariance.dtype)
    values, vectors = torch.linalg.eigh(covariance)
    covariance = (vectors * values.clamp_min(1e-3)) @ vectors.mT
    total = both.min().clamp_min(len(nodes) + 1.0)
    gram = torch.zeros(len(nodes) + 1, len(nodes) + 1, dtype=covariance.dtype)
    gram[0, 0], gram[0, 1:], gram[1:, 0] = 1.0, mean, mean
    gram[1:, 1:] = covariance + torch.outer(mean, mean)
    gram = total * gram
    prior = torch.eye(len(nodes), dtype=gram.dtype) / template.coefficient_scale**2
    precision = prior + gram[:-1, :-1]
    slopes = torch.linalg.solve(precision, gram[:-1, -1])
    left = gram[-1, -1] - slopes @ gram[:-1, -1]
    return NormalInverseGamma(
        slopes, precision, template.variance_shape + total / 2, template.variance_scale + left.clamp_min(0) / 2
    )


def perturbed(
    problem: Problem,
    size: int,
    *,
    seed: int,
    learn: Callable[[Tensor], Template] | None = None,
    iterations: int = ITERATIONS,
) -> Iterator[Tensor]:
    """The paper's algorithm: synthetic parts, one a source, moved along finite differences; yields after every step.

    Published: take one part, perturb it by Gaussian noise, learn a network from the part and from its copy, score the
    other sources' data under both, step along the difference. Not published, and so ours: parts start as sequences of
    their source, hidden variables standard normal; a network is scored at its posterior mean; a step goes ``STEP``
    standard deviations along the perturbation, of deviation ``SIZE``, to the side that scored better.

    Args:
        problem: The sources; noise and hidden variables are unknown to the algorithm, except that scores leave out what
            is hidden.
        size: Number M of rows of all parts together.
        seed: Seed.
        learn: From a part ``(rows, T, V)`` to a template; default: the true one.
        iterations: Steps.
    """
    generator = torch.Generator().manual_seed(seed)
    parts_seen = problem.seen.split(problem.sizes)
    shares = [len(range(k, size, len(parts_seen))) for k in range(len(parts_seen))]
    parts = []
    for rows, share in zip(parts_seen, shares, strict=True):
        start = rows[torch.randperm(len(rows), generator=generator)[:share]]
        parts.append(torch.where(start.isnan(), torch.randn(start.shape, generator=generator).double(), start))
    used = [k for k, share in enumerate(shares) if share]

    def score(part: Tensor, k: int) -> float:
        template = problem.template if learn is None else learn(part)
        others = torch.cat([rows for j, rows in enumerate(parts_seen) if j != k])
        return float(dbn.log_likelihood(template, means(dbn.conjugate(template, {"x": part})), {"x": others}).mean())

    for step in range(iterations):
        k = used[step % len(used)]
        away = SIZE * torch.randn(parts[k].shape, generator=generator, dtype=torch.float64)
        gain = score(parts[k] + away, k) - score(parts[k], k)
        parts[k] = parts[k] + math.copysign(STEP / SIZE, gain) * away
        yield torch.cat(parts)


def means(posterior: Posterior) -> dict[str, Tensor]:
    """Posterior means as one draw: site -> ``(1, *shape)``."""
    found = {}
    for site, family in posterior.families.items():
        if isinstance(family, Dirichlet):
            found[site] = (family.concentration / family.concentration.sum(-1, keepdim=True))[None]
        else:
            found[site], found[f"{site}_variance"] = family.mean[None], (family.scale / (family.shape - 1))[None]
    return found
