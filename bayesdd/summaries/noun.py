"""What a source sends in place of rows: its log-likelihood near a point, to third order, in one file."""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass
from itertools import combinations_with_replacement
from typing import Any

import torch
from torch import Tensor

from bayesdd.data.files import load, replacing
from bayesdd.data.seal import check_seal, sealed
from bayesdd.numerics import words
from bayesdd.numerics.refusal import Refusal

MARK, FORMAT = "bayesdd_summary", 1
TENSORS = ("at", "gradient", "hessian", "prior_gradient", "prior_hessian", "scales", "remainder")


@dataclass(frozen=True, eq=False, repr=False)
class Summary:
    """The log-likelihood of some rows near a point, to third order, and what that leaves out.

    Summaries at one point add: ``combine``. Rows for all sources are distilled from the sum alone:
    ``bayesdd.distill(combined, size=30, student=task)``.

    Attributes:
        at: The point, unconstrained, ``(P,)``.
        value: The log-likelihood there, nats.
        gradient: Its gradient, ``(P,)``.
        hessian: Its Hessian, ``(P, P)``.
        third: Its third derivatives, ``(P, P, P)``.
        prior_gradient: Gradient of the log prior, ``(P,)``, equal in all sources.
        prior_hessian: Hessian of the log prior, ``(P, P)``.
        scales: Widths of draws around the point, in units of this posterior's sds, ``(K,)``.
        remainder: Root mean square of what three derivatives leave out over such draws, nats, ``(K,)``.
        rows: Number N of rows.
        sources: Number of sources.
        sites: Latent site -> shape.
        task: Name of the task.
        model_hash: SHA-256 of the model's source.
    """

    at: Tensor
    value: float
    gradient: Tensor
    hessian: Tensor
    third: Tensor
    prior_gradient: Tensor
    prior_hessian: Tensor
    scales: Tensor
    remainder: Tensor
    rows: int
    sources: int
    sites: dict[str, tuple[int, ...]]
    task: str
    model_hash: str

    @property
    def precision(self) -> Tensor:
        """Negative Hessian of the log posterior at the point, ``(P, P)``."""
        return -(self.hessian + self.prior_hessian)

    @property
    def mode(self) -> Tensor:
        """Mode of the posterior to third order, unconstrained, ``(P,)``: the point for another round.

        Raises:
            Refusal: The posterior curves upward at the point, so that its mode cannot be told from there.
        """
        return self.at + self._step()

    @property
    def shift(self) -> float:
        """How far the mode lies from the point, in posterior sds."""
        step = self._step()
        return float((step @ self.precision @ step).clamp_min(0).sqrt())

    @property
    def error(self) -> float:
        """Standard deviation of what three derivatives leave out over draws of this posterior, nats.

        Of a quartic, whose change over draws d sds away from the point grows as the third power of 1 + d.
        """
        return self.left_out(1.0) * (1.0 + self.shift) ** 3

    def left_out(self, scale: float) -> float:
        """The remainder at any scale, nats: measured ones joined by powers of the scale, the last power beyond them."""
        x, y = self.scales.log(), self.remainder.clamp_min(1e-300).log()
        place = int(torch.searchsorted(x, math.log(scale)).clamp(1, len(x) - 1))
        slope = (y[place] - y[place - 1]) / (x[place] - x[place - 1])
        return float((y[place] + slope * (math.log(scale) - x[place])).exp())

    def _step(self) -> Tensor:
        """From the point to the mode, by Newton steps on the cubic; the quadratic's where these leave it."""
        root, info = torch.linalg.cholesky_ex(self.precision)
        if int(info):
            raise Refusal(
                f"summary of {self.task}: the posterior curves upward at the point, which is too far from its mode: "
                "take summaries at another one, such as the mode of the largest source (summary(task).at)"
            )
        slope = self.gradient + self.prior_gradient
        first = step = torch.cholesky_solve(slope[:, None], root)[:, 0]
        for _ in range(20):
            bent = self.precision - torch.einsum("abc,c->ab", self.third, step)
            lower, info = torch.linalg.cholesky_ex(bent)
            if int(info):
                return first
            tilt = slope - self.precision @ step + 0.5 * torch.einsum("abc,b,c->a", self.third, step, step)
            step = step + torch.cholesky_solve(tilt[:, None], lower)[:, 0]
        return step if bool(torch.isfinite(step).all()) else first

    def to_netcdf(self, path: str | os.PathLike[str]) -> None:
        """Writes a netCDF file, whole or not at all, with a hash of its content.

        Raises:
            OSError: It cannot be written; an earlier file there is unchanged.
        """
        import xarray as xr

        tensors = {name: getattr(self, name) for name in TENSORS} | {"third": self.third[packed(len(self.at))]}
        axes = {"scales": "scale", "remainder": "scale", "third": "triple"}
        variables = {
            name: ([axes[name]] if name in axes else ["latent", "other"][: tensor.dim()], tensor.numpy())
            for name, tensor in tensors.items()
        }
        about = {"rows": self.rows, "sources": self.sources, "task": self.task, "model_hash": self.model_hash}
        sites = json.dumps({name: list(shape) for name, shape in self.sites.items()})
        dataset = sealed(xr.Dataset(variables, attrs={MARK: FORMAT, "value": self.value, "sites": sites, **about}))
        with replacing(path) as part:
            dataset.to_netcdf(part, engine="netcdf4", format="NETCDF4")

    @classmethod
    def from_netcdf(cls, path: str | os.PathLike[str]) -> Summary:
        """Reads what ``to_netcdf`` wrote.

        Raises:
            FileNotFoundError: No such file.
            Refusal: It is damaged, or no summary.
        """
        import xarray as xr

        dataset = load(path, lambda p: xr.load_dataset(p, engine="netcdf4"), "a netCDF file")
        if dataset.attrs.get(MARK) != FORMAT:
            raise Refusal(f"{path} holds no summary of format {FORMAT}; give a file that Summary.to_netcdf wrote")
        check_seal(dataset, str(path))
        found = {name: torch.as_tensor(dataset[name].values) for name in TENSORS}
        attributes: dict[str, Any] = dataset.attrs
        dim = len(found["at"])
        third = torch.zeros(dim, dim, dim, dtype=torch.float64)
        third[packed(dim)] = torch.as_tensor(dataset["third"].values)
        return cls(
            **found,
            third=whole(third),
            value=float(attributes["value"]),
            rows=int(attributes["rows"]),
            sources=int(attributes["sources"]),
            sites={name: tuple(shape) for name, shape in json.loads(attributes["sites"]).items()},
            task=str(attributes["task"]),
            model_hash=str(attributes["model_hash"]),
        )

    def __repr__(self) -> str:
        dim = len(self.at)
        numbers = 1 + dim + dim * (dim + 1) // 2 + dim * (dim + 1) * (dim + 2) // 6
        return words.text(
            f"Summary of {self.task}: {self.rows:,} rows of {self.sources} source{'s' * (self.sources > 1)}",
            {
                "numbers": f"{numbers:,}, three derivatives at one point of {words.listed(self._named())}",
                "remainder": f"{self.error:.2g} nats (sd) over its posterior, {self.shift:.1f} sds from the point",
            },
        )

    def _named(self) -> list[str]:
        return [words.sized(name, shape) for name, shape in self.sites.items()]


def packed(dim: int) -> tuple[Tensor, Tensor, Tensor]:
    """Places of the distinct third derivatives, i <= j <= k, in a ``(P, P, P)`` tensor."""
    places = torch.tensor(list(combinations_with_replacement(range(dim), 3)), dtype=torch.int64)
    return places[:, 0], places[:, 1], places[:, 2]


def whole(third: Tensor) -> Tensor:
    """All of a symmetric ``(P, P, P)`` tensor from its places i <= j <= k; the others are not read."""
    place = torch.cartesian_prod(*[torch.arange(len(third))] * 3).sort(dim=1).values
    return third[place[:, 0], place[:, 1], place[:, 2]].reshape(third.shape)
