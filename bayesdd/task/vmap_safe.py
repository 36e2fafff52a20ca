"""Functional forms for vmap of densities, the normal log-cdf, logaddexp, factorisations, normal noise and shapes.

Their own code writes in place, looks at values, or is slow; a factorisation that fails at one draw ends all others.

They hold only while bayesdd runs a model; the densities are Pyro's and torch's own.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from pyro.distributions import Categorical, NanMaskedMultivariateNormal, NanMaskedNormal, OrderedLogistic
from torch import Tensor
from torch._functorch import eager_transforms
from torch.distributions import (
    Bernoulli,
    Multinomial,
    MultivariateNormal,
    Normal,
    lowrank_multivariate_normal,
    multivariate_normal,
    normal,
    studentT,
)

from bayesdd.numerics.backward import products

_NOISY: tuple[Any, ...] = (normal, multivariate_normal, lowrank_multivariate_normal, studentT)
_OWN_SOLVE = torch.linalg.solve
LINEAR_FROM = 40.0  # softplus(x) = x to float64's last digit; torch's own bound of 20 leaves 2e-9


def _ordered_logistic(self: Any, predictor: Tensor, cutpoints: Tensor, validate_args: bool | None = None) -> None:
    below = torch.sigmoid(cutpoints - predictor.unsqueeze(-1))
    self.predictor = predictor.expand(below.shape[:-1])
    self.cutpoints = cutpoints.expand(below.shape)
    between = below[..., 1:] - below[..., :-1]
    probability = torch.cat([below[..., :1], between, 1 - below[..., -1:]], -1)
    Categorical.__init__(self, probability, validate_args=validate_args)


def _multinomial(self: Any, value: Tensor) -> Tensor:
    logits, value = torch.broadcast_tensors(self.logits, value)
    ways = torch.lgamma(value.sum(-1) + 1) - torch.lgamma(value + 1).sum(-1)
    return ways + (torch.where((value == 0) & torch.isneginf(logits), 0.0, logits) * value).sum(-1)


def _bernoulli(self: Any, value: Tensor) -> Tensor:
    """Three operations in place of the twelve that vmap makes of torch's cross entropy: twice as fast."""
    logits, value = torch.broadcast_tensors(self.logits, value)
    found: Tensor = value * logits - torch.nn.functional.softplus(logits, threshold=LINEAR_FROM)
    return found


def _nan_masked_normal(self: Any, value: Tensor) -> Tensor:
    """Zero where the value is missing."""
    here = torch.isfinite(value)
    log_prob = Normal.log_prob(self, torch.where(here, value, 0.0))
    return torch.where(here, log_prob, 0.0)


def _nan_masked_multivariate_normal(self: Any, value: Tensor) -> Tensor:
    """The marginal of what is there: missing coordinates as independent standard normals at zero, taken off again."""
    here = torch.isfinite(value)
    both = here[..., :, None] & here[..., None, :]
    eye = torch.eye(value.shape[-1], dtype=value.dtype, device=value.device)
    covariance = torch.where(both, self.covariance_matrix, eye)
    beside = torch.where(here, torch.where(here, value, 0.0) - self.loc, 0.0)
    whole = MultivariateNormal(torch.zeros_like(beside), covariance, validate_args=False).log_prob(beside)
    found: Tensor = whole + (~here).to(value.dtype).sum(-1) * (math.log(2 * math.pi) / 2)
    return found


def log_ndtr(x: Tensor) -> Tensor:
    """Logarithm of the standard normal's cdf, to float64's precision in both tails."""
    low, high = torch.where(x < 0, x, 0.0), torch.where(x < 0, 0.0, x)  # clamp's derivative at 0 differs by version
    below = (torch.special.erfcx(-low / math.sqrt(2)) / 2).log() - low**2 / 2
    return torch.where(x < 0, below, torch.log1p(-torch.special.erfc(high / math.sqrt(2)) / 2))


def _logaddexp(first: Tensor, second: Tensor) -> Tensor:
    """With a second derivative everywhere: that of torch's own is not finite where the two are 710 nats apart."""
    return torch.stack(torch.broadcast_tensors(first, second)).logsumexp(0)


def _cholesky(matrix: Tensor, *, upper: bool = False) -> Tensor:
    """NaN where the matrix is not positive definite: the density is not finite there, and other draws go on."""
    factor, info = torch.linalg.cholesky_ex(matrix, upper=upper)
    return torch.where((info == 0)[..., None, None], factor, torch.nan)


def _old_cholesky(matrix: Tensor, upper: bool = False) -> Tensor:
    return _cholesky(matrix, upper=upper)


def _inverse(matrix: Tensor) -> Tensor:
    """NaN where the matrix is singular."""
    found, info = torch.linalg.inv_ex(matrix)
    return torch.where((info == 0)[..., None, None], found, torch.nan)


def _solve(matrix: Tensor, other: Tensor, *, left: bool = True) -> Tensor:
    """NaN where the matrix is singular; the identity takes its place, whose derivatives do not fail."""
    fine = (torch.linalg.inv_ex(matrix.detach())[1] == 0)[..., None, None]
    eye = torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)
    found = _OWN_SOLVE(torch.where(fine, matrix, eye), other, left=left)
    return torch.where(fine[..., 0] if found.dim() < matrix.dim() else fine, found, torch.nan)


def _standard_normal(shape: Any, dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.randn(shape, dtype=dtype, device=device)


def _broadcast_shapes(*shapes: int | Sequence[int]) -> torch.Size:
    """A shape that all broadcast to; torch's own imports sympy on its first call, half a second."""
    try:
        return torch.Size(np.broadcast_shapes(*shapes))
    except ValueError as error:
        raise RuntimeError(f"shapes cannot be broadcast: {error}") from error


def _autograd_grad(
    outputs: Sequence[Tensor],
    inputs: Sequence[Tensor],
    grad_outputs: Sequence[Tensor] | None = None,
    retain_graph: bool = False,
    create_graph: bool = True,
) -> tuple[Tensor, ...]:
    """What ``torch.func`` does, without the guard against compiled gradients: that imports a compiler, two seconds."""
    given = [torch.ones_like(output) for output in outputs] if grad_outputs is None else grad_outputs
    smooth = [(output, along) for output, along in zip(outputs, given, strict=True) if output.requires_grad]
    if not smooth:
        return tuple(torch.zeros_like(variable) for variable in inputs)
    found = products([o for o, _ in smooth], inputs, [along for _, along in smooth], create_graph=create_graph)
    return tuple(
        torch.zeros_like(variable) if slope is None else slope for slope, variable in zip(found, inputs, strict=True)
    )


_FORMS: tuple[tuple[Any, str, Any], ...] = (
    (OrderedLogistic, "__init__", _ordered_logistic),
    (Multinomial, "log_prob", _multinomial),
    (Bernoulli, "log_prob", _bernoulli),
    (NanMaskedNormal, "log_prob", _nan_masked_normal),
    (NanMaskedMultivariateNormal, "log_prob", _nan_masked_multivariate_normal),
    (torch.special, "log_ndtr", log_ndtr),
    *((owner, "logaddexp", _logaddexp) for owner in (torch, Tensor)),
    (torch, "broadcast_shapes", _broadcast_shapes),
    (torch.linalg, "cholesky", _cholesky),
    *((owner, "cholesky", _old_cholesky) for owner in (torch, Tensor)),
    (torch.linalg, "inv", _inverse),
    *((owner, "inverse", _inverse) for owner in (torch, Tensor)),
    (torch.linalg, "solve", _solve),
    *[(eager_transforms, "_autograd_grad", _autograd_grad)] * hasattr(eager_transforms, "_autograd_grad"),  # private
    *((module, "_standard_normal", _standard_normal) for module in _NOISY),
)


@contextmanager
def vmap_safe() -> Iterator[None]:
    """Puts the functional forms in place; restores the library's own."""
    own = [getattr(owner, name) for owner, name, _ in _FORMS]
    for owner, name, form in _FORMS:
        setattr(owner, name, form)
    try:
        yield
    finally:
        for (owner, name, _), before in zip(_FORMS, own, strict=True):
            setattr(owner, name, before)
