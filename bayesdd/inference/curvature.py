"""The Gauss-Newton matrix of a posterior plus its prior's precision: solves, squares and draws at several points."""

from __future__ import annotations

import torch
from torch import Tensor

from bayesdd.density.density import Density
from bayesdd.inference.information import Information

LONGEST = 3.0  # prior sds that a step may move a coordinate: far from the data a scale's information is too small


class Curvature:
    """A = J'J + Pi at S points: solves, squares and draws; in R dimensions where the roots R are fewer than P.

    Args:
        density: The posterior.
        information: Its rows' Jacobians J.
        points: Unconstrained points, ``(S, P)``.
        moving: One where a coordinate moves, zero where it is held and so independent of the others, ``(P,)``.

    Attributes:
        longest: Most that a step may move each coordinate, ``(S, P)``.
    """

    def __init__(self, density: Density, information: Information, points: Tensor, moving: Tensor) -> None:
        self.prior = _prior_precision(density, points)
        if self.prior.dim() == 3:
            self.prior = self.prior * moving[:, None] * moving + torch.diag(1 - moving)
        spread = self.prior.diagonal(dim1=1, dim2=2) if self.prior.dim() == 3 else self.prior
        self.longest = LONGEST / spread.sqrt()
        dim, roots = points.shape[1], 0
        kept: list[Tensor] = []
        self.matrix: Tensor | None = None
        for block in information.blocks(points):
            block = block * moving
            roots += block.shape[1]
            if self.matrix is None and (roots > dim or self.prior.dim() == 3):
                self.matrix = torch.zeros(len(points), dim, dim, dtype=points.dtype, device=points.device)
                for before in kept:
                    self.matrix += before.mT @ before
                kept = []
            if self.matrix is None:
                kept.append(block)
            else:
                self.matrix += block.mT @ block
        if self.matrix is not None:
            self.matrix += self.prior if self.prior.dim() == 3 else torch.diag_embed(self.prior)
            self.diagonal = self.matrix.diagonal(dim1=1, dim2=2)
        else:
            self.root = torch.cat(kept, 1)
            self.diagonal = (self.root**2).sum(1) + self.prior

    def solve(self, right: Tensor, damping: Tensor) -> Tensor:
        """(A + damping diag A)^-1 right, ``(S, P)``."""
        extra = damping[:, None] * self.diagonal
        if self.matrix is not None:
            lower = torch.linalg.cholesky(self.matrix + torch.diag_embed(extra))
            return torch.cholesky_solve(right[..., None], lower)[..., 0]
        base = self.prior + extra
        first = right / base
        inner = torch.linalg.cholesky(_one_more(self.root @ (self.root / base[:, None]).mT))
        back = torch.cholesky_solve(self.root @ first[..., None], inner)
        return first - (self.root.mT @ back)[..., 0] / base

    def square(self, vector: Tensor) -> Tensor:
        """The quadratic form v' A v, ``(S,)``."""
        if self.matrix is not None:
            return (vector * (self.matrix @ vector[..., None])[..., 0]).sum(1)
        return ((self.root @ vector[..., None]) ** 2).sum((1, 2)) + (self.prior * vector**2).sum(1)

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Draws of N(0, A^-1), ``(S, count, P)``; with few roots by Matheron's rule: draws of the prior, corrected."""
        points, dim = self.diagonal.shape

        def noise(width: int) -> Tensor:
            made = torch.randn(points, count, width, generator=generator, dtype=self.diagonal.dtype)
            return made.to(self.diagonal.device)

        if self.matrix is not None:
            lower = torch.linalg.cholesky(self.matrix)
            drawn: Tensor = torch.linalg.solve_triangular(lower.mT, noise(dim).mT, upper=True).mT
            return drawn
        wide = noise(dim) / self.prior.sqrt()[:, None]
        scaled = self.root / self.prior[:, None]
        inner = torch.linalg.cholesky(_one_more(self.root @ scaled.mT))
        miss = noise(self.root.shape[1]) - wide @ self.root.mT
        found: Tensor = wide + torch.cholesky_solve(miss.mT, inner).mT @ scaled
        return found


def _one_more(matrix: Tensor) -> Tensor:
    found: Tensor = matrix + torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)
    return found


def _prior_precision(density: Density, points: Tensor) -> Tensor:
    """Minus the log prior's Hessian: ``(S, P)`` where it is diagonal, else ``(S, P, P)``, made positive definite.

    Two Hessian products tell whether it is diagonal: with a vector of ones and with one of random signs.
    """
    at = points.detach().clone().requires_grad_(True)
    (slope,) = torch.autograd.grad(density.log_prior(at).sum(), at, create_graph=True)
    signs = 2.0 * torch.randint(2, (points.shape[1],), generator=torch.Generator().manual_seed(0)).to(points) - 1
    if not slope.requires_grad:
        return torch.full_like(points, 1e-12)
    rows, turned = (
        torch.autograd.grad(slope, at, v.expand_as(slope), retain_graph=True, allow_unused=True)[0]
        for v in (torch.ones_like(signs), signs)
    )
    if torch.allclose(rows * signs, turned, rtol=1e-9, atol=1e-9):
        return (-rows).clamp_min(1e-12)
    precision = -density.prior_derivatives(points)[2]
    values, vectors = torch.linalg.eigh((precision + precision.mT) / 2)
    definite: Tensor = (vectors * values.abs().clamp_min(1e-12)[:, None]) @ vectors.mT
    return definite
