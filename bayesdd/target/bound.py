"""The bound: how close any M rows can come, since directions outside the range of their Hessians keep the prior."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bayesdd.density.density import derivatives
from bayesdd.target.second_order import SecondOrder
from bayesdd.target.target import Target

ROWS_FOR_RANK = 8  # the largest rank among so many rows is taken for the rank of any row
NEGLIGIBLE = 1e-3  # nats: a direction that data inform by less than this counts as not informed


@dataclass(frozen=True, eq=False)
class Bound:
    """How many directions of the posterior M rows of one model can inform, and what the others cost.

    Attributes:
        row_rank: Rank of one row's Hessian.
        information: What each direction costs at the prior: (lambda - 1 - log lambda) / 2 for the eigenvalues lambda of
            the prior-whitened posterior precision, ascending, nats, ``(P,)``.
    """

    row_rank: int
    information: Tensor

    @classmethod
    def of(cls, second: SecondOrder, target: Target) -> Bound:
        """At the Gaussian of the full posterior."""
        return cls(_row_rank(target, second.gaussian.mean), _information(second))

    def at(self, size: int) -> float:
        """Lower bound on the KL of any M rows, nats."""
        unmatched = len(self.information) - size * self.row_rank
        return float(self.information[: max(0, unmatched)].sum())

    def smallest_size(self, tolerance: float) -> int:
        """The smallest M whose bound is within a tolerance, nats."""
        size = 1
        while self.at(size) > tolerance:
            size += 1
        return size

    def warning(self, size: int, tolerance: float) -> str:
        """One line for a user whose M is too small; empty if it is not."""
        least = self.at(size)
        if least <= tolerance:
            return ""
        informed = int((self.information > 0).sum())
        return (
            f"{size} rows cannot come closer than {least:.3g} nats: each informs {self.row_rank} of the {informed} "
            f"directions that the data inform. Take size={self.smallest_size(tolerance)} or more."
        )


def _row_rank(target: Target, mean: Tensor) -> int:
    """Rank of one row's Hessian: the largest among a few of the student's rows."""
    student = target.student
    directions = torch.arange(len(mean), device=mean.device)
    rank = 1
    count = len(next(iter(student.data.values())))
    for row in range(0, count, max(1, count // ROWS_FOR_RANK)):
        one = {name: column[row : row + 1].to(mean.device) for name, column in student.data.items()}
        hessian = derivatives(student, one, None, mean, directions)[2]
        if bool(torch.isfinite(hessian).all()):
            rank = max(rank, int(torch.linalg.matrix_rank(hessian, rtol=1e-8)))
    return rank


def _information(second: SecondOrder) -> Tensor:
    precision = torch.cholesky_inverse(second.gaussian.factor)
    values, vectors = torch.linalg.eigh(-second.prior_hessian)
    # Where a prior is flat or convex, a millionth of the posterior's precision takes the place of its own.
    least = 1e-6 * float(precision.diagonal().max())
    root = vectors / values.clamp_min(least).sqrt()
    ratio = torch.linalg.eigvalsh(root.T @ precision @ root).clamp_min(1.0)
    information = 0.5 * (ratio - 1 - ratio.log())
    return torch.where(information < NEGLIGIBLE, 0.0, information).sort().values
