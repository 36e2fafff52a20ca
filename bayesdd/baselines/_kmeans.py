"""k-means centres, each weighted by the number of rows in its cluster.

Rows are clustered stratum by stratum (labels, fixed columns, patterns of missing entries), so that labels stay labels;
a stratum gets its share of the centres as ``stratified`` gives it. Distances are Euclidean in the coordinates in which
``distill`` moves rows: real columns whitened by all real rows, positive ones by their logs, bounded ones by their
logits. What a centre holds, column by column:

- real, positive, interval: the cluster's mean in those coordinates (for positive columns the geometric mean);
- counts and successes in trials: the arithmetic mean, because their log-likelihoods are linear in the observation up to
  a constant, so that at equal covariates the mean row with the cluster's weight is exact. They take no part in
  distances;
- binary, fixed and classes: those of the stratum; fixed columns held as floats, which are no strata: those of the row
  nearest the centre.

It matches the distribution of the rows and does not use the posterior: means shrink the covariates' spread, and with it
the curvature. Cost: no likelihood; N x M distances an iteration.

Source: Lloyd, "Least squares quantization in PCM", IEEE Trans. Inf. Theory 1982; Arthur & Vassilvitskii, "k-means++:
the advantages of careful seeding", SODA 2007.
"""

from __future__ import annotations

import warnings

import torch
from scipy.cluster.vq import kmeans2
from torch import Tensor

from bayesdd.baselines._parts import checked
from bayesdd.data.distilled import Distilled
from bayesdd.distillation import stratified
from bayesdd.distillation.coordinates import Coordinates
from bayesdd.task.kinds import Kind
from bayesdd.task.provenance import provenance_of
from bayesdd.task.task import Task

LINEAR = {"count", "trials"}


def kmeans(task: Task, size: int, *, seed: int, iterations: int = 30) -> Distilled:
    """k-means centres with the sizes of their clusters as weights.

    Args:
        size: Number M of centres; fewer come back where a stratum has fewer distinct rows than its share.
        iterations: Lloyd iterations after the k-means++ start.

    Returns:
        The weighted centres, total weight N. With more strata than centres, strata are drawn by their sizes and the
        weights scaled to the sum N.
    """
    size = checked(task, size)
    generator = torch.Generator().manual_seed(seed)
    points, group = _whitened(task), stratified.strata(task.data, task.column_kinds)
    picked, _ = stratified.choose(task.data, task.column_kinds, size, generator)
    label, used = torch.full((task.size,), -1), 0
    for stratum, centres in enumerate(torch.bincount(group[picked]).tolist()):
        if centres:
            members = (group == stratum).nonzero()[:, 0]
            label[members] = used + _clusters(points[members], centres, iterations, generator)
            used = int(label.max()) + 1
    rows, weight = _centres(task, points, label, used)
    weight = weight * (task.size / weight.sum())
    provenance = provenance_of(task, [task], seed, used, "kmeans")
    return Distilled(rows, weight, soft=task.soft, provenance=provenance, labels=task.labels)


def _whitened(task: Task) -> Tensor:
    """The rows in whitened coordinates, ``(N, D)``; missing entries at the mean. D may be zero."""
    kinds = {name: kind for name, kind in task.column_kinds.items() if kind.whiten and kind.to_free is not None}
    real = {name: task.data[name] for name in kinds}
    if not kinds:
        return torch.zeros(task.size, 0, dtype=torch.float64)
    return Coordinates(real, kinds, real, {}).free().reshape(task.size, -1)


def _clusters(points: Tensor, count: int, iterations: int, generator: torch.Generator) -> Tensor:
    """Number of the cluster of every point, from 0 without gaps, at most ``count`` of them."""
    centres = _plus_plus(points, count, generator)
    if len(centres) == 1:
        return torch.zeros(len(points), dtype=torch.int64)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="One of the clusters is empty")  # it is left out below
        label = kmeans2(points.numpy(), centres.numpy(), iter=iterations, minit="matrix")[1]
    found: Tensor = torch.from_numpy(label).unique(return_inverse=True)[1]
    return found


def _plus_plus(points: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Distinct points, each drawn by its squared distance to the nearest one before: fewer where points coincide.

    SciPy's own start warns where points coincide, and the name of its seed differs between versions.
    """
    drawn = [int(torch.randint(len(points), (1,), generator=generator))]
    distance = ((points - points[drawn[0]]) ** 2).sum(1)
    while len(drawn) < count and bool((distance > 0).any()):
        drawn.append(int(torch.multinomial(distance, 1, generator=generator)))
        distance = torch.minimum(distance, ((points - points[drawn[-1]]) ** 2).sum(1))
    return points[drawn]


def _centres(task: Task, points: Tensor, label: Tensor, count: int) -> tuple[dict[str, Tensor], Tensor]:
    """Rows at the centres of clusters 0 to count - 1, and the clusters' sizes; rows labelled -1 belong to none."""
    members = (label >= 0).nonzero()[:, 0]
    label, points = label[members], points[members]
    weight = torch.bincount(label, minlength=count).double()
    order = torch.argsort(((points - _means(points, label, weight)[label]) ** 2).sum(1), stable=True)
    order = order[torch.argsort(label[order], stable=True)]  # cluster by cluster, nearest first
    nearest = members[order[(weight.cumsum(0) - weight).long()]]
    rows = {}
    for name, kind in task.column_kinds.items():
        column = task.data[name]
        if kind.classes:
            rows[name] = torch.nn.functional.one_hot(column[nearest].long(), kind.classes).double()
        elif kind.to_free is None or kind.name == "binary":
            rows[name] = column[nearest]
        else:
            rows[name] = _moved(column[members], column[nearest], kind, label, weight)
    return rows, weight


def _moved(column: Tensor, nearest: Tensor, kind: Kind, label: Tensor, weight: Tensor) -> Tensor:
    """Means of a column over clusters; elements that are equal throughout a cluster stay as they are, to the bit."""
    if kind.name in LINEAR or kind.to_free is None or kind.from_free is None:
        centre = _means(column, label, weight)
    else:
        centre = kind.from_free(_means(kind.to_free(column), label, weight))
    differ = torch.zeros_like(nearest).index_add(0, label, (column != nearest[label]).double())
    return torch.where(differ > 0, centre, nearest)


def _means(values: Tensor, label: Tensor, weight: Tensor) -> Tensor:
    total = torch.zeros(len(weight), *values.shape[1:], dtype=torch.float64).index_add(0, label, values)
    return total / weight.reshape(-1, *[1] * (values.dim() - 1))
