"""Distilled: a few weighted rows that stand in for a dataset; the file they live in, the table they print as.

Their log-likelihood is ``l_U(theta) = sum_m w_m l(theta; u_m)``; the weights need not sum to the number of real rows.
A column held as class probabilities q (soft) stands for ``sum_k q_k l(theta; x, y=k)``.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from bayesdd.data import columns
from bayesdd.data.certificate import Certificate, from_dict
from bayesdd.data.columns import DISTILLED_MARK, Columns
from bayesdd.data.files import load, replacing
from bayesdd.data.names import free_name
from bayesdd.data.predictive import PredictiveCertificate
from bayesdd.data.seal import check_seal, sealed
from bayesdd.data.sequences import long_table, weight_name, wide_table
from bayesdd.data.values import Label, Labels, coded, tensor
from bayesdd.data.whole import Likelihood, splits, whole_rows
from bayesdd.numerics import words
from bayesdd.numerics.refusal import Refusal, WrongType

if TYPE_CHECKING:
    import xarray as xr

FORMAT = 1
ABOUT = (
    "weighted rows that have the posterior of one model given all its real rows; another model's answers differ, and "
    "bayesdd.certify(other_task, distilled) says how far"
)


@dataclass(frozen=True, eq=False, repr=False)
class Distilled:
    """Weighted synthetic rows, their certificate and where they came from.

    The rows serve the model that they were distilled for, whose posterior they have. They are no sample of the real
    rows: averages over them, and other models' answers, differ; ``bayesdd.certify(other_task, distilled)`` says how
    far. A set made by hand, ``Distilled({"y": array}, weights)``, serves wherever its columns fit.

    Attributes:
        data: column -> ``(M, ...)``, float64 or int64, CPU, detached, in the user's own units.
        weight: ``(M,)`` float64, positive and finite.
        certificate: how far the distilled posterior is from the full one; None until somebody asked.
        soft: columns held as class probabilities ``(M, K)``: name -> K.
        labels: columns of codes, or their elements: name -> label of each code. Text in ``data`` becomes codes.
        provenance: JSON-able: task, model_hash, sites, fingerprint, seed, rows (N), size (M), objective, versions,
            splits (discrete outcome column -> whether its fractions split into whole rows), rounds (size, stage, what
            was judged, nats).

    Raises:
        Refusal: columns and weights whose rows differ in number, weights that are not positive and finite, class
            probabilities of another shape, negative, or not summing to one.

    Example:
        >>> by_hand = bayesdd.Distilled({"x": [[1.0, 0.0]], "y": [1.0]}, [200.0])
        >>> list(by_hand.to_frame())
        ['x[0]', 'x[1]', 'y', 'weight']
    """

    data: dict[str, Tensor]
    weight: Tensor
    certificate: Certificate | PredictiveCertificate | None = None
    soft: dict[str, int] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
    labels: Mapping[str, Sequence[Label]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Bring every tensor to the CPU, detached, float64 or int64, and check that the parts fit together."""
        data, labels = _read(self.data, {name: tuple(some) for name, some in self.labels.items()})
        weight = tensor(self.weight, "the weights").to(torch.float64)
        for name, value in (("data", data), ("weight", weight), ("labels", labels)):
            object.__setattr__(self, name, value)
        if weight.ndim != 1 or len(weight) == 0 or not data:
            raise Refusal(
                f"Distilled needs columns {list(data)} and one weight a row, got {tuple(weight.shape)} weights"
            )
        for name, value in data.items():
            if value.shape[:1] != weight.shape:
                raise Refusal(f"column {name!r} of shape {tuple(value.shape)} does not fit {len(weight)} weights")
        if not bool((weight.isfinite() & (weight > 0)).all()):
            raise Refusal(f"weights must be positive and finite, but the least is {weight.min()}; drop such rows")
        for name, classes in self.soft.items():
            q = data.get(name, weight)
            if tuple(q.shape) != (len(weight), classes) or bool((q < 0).any() or ((q.sum(1) - 1).abs() > 1e-6).any()):
                raise Refusal(f"soft column {name!r} needs {classes} class probabilities a row, which sum to one")

    def __len__(self) -> int:
        """M, the number of synthetic rows."""
        return len(self.weight)

    def __repr__(self) -> str:
        """Sizes, columns, total weight and the verdict; no values."""
        rows = self.provenance.get("rows")
        shapes = ", ".join(f"{name} {tuple(value.shape[1:]) or ''}".strip() for name, value in self.data.items())
        of = f" for {rows:,}" if isinstance(rows, int) else ""
        verdict = (
            "no certificate" if self.certificate is None else "certified" if self.certificate.ok else "NOT certified"
        )
        return f"Distilled({len(self):,} rows{of}; {shapes}; total weight {float(self.weight.sum()):.6g}; {verdict})"

    def _repr_html_(self) -> str:
        rows = self.provenance.get("rows")
        lines = {
            "rows": f"{len(self):,}" + (f" for {rows:,}" if isinstance(rows, int) else ""),
            "columns": words.listed(words.sized(name, value.shape[1:]) for name, value in self.data.items()),
            "total weight": f"{float(self.weight.sum()):.6g}",
        }
        verdict = "no certificate yet" if self.certificate is None else self.certificate._repr_html_()
        return words.html("Distilled", lines) + verdict

    def hard(self) -> tuple[dict[str, Tensor], Tensor]:
        """Rows and weights without soft columns: every row once for each class k, its weight multiplied by q_k.

        Several soft columns give every combination of classes. Combinations of zero weight are left out. The
        log-likelihood is the same, exactly; without soft columns these are the rows themselves.
        """
        data, weight = explode(self.data, self.weight, self.soft)
        kept = weight > 0
        return {name: value[kept] for name, value in data.items()}, weight[kept]

    def to_frame(self, whole: bool = False, task: Likelihood | None = None) -> pd.DataFrame:
        """The hard rows as a table, array columns spelled `x[0]`, `x[1]`, ...; the last column is the weight.

        Codes come out as labels, but for an outcome between two of them, whose column stays as numbers. Sequences of
        ``bayesdd.dbn`` have their variables' names, units and states, ``bili[0]``, ``bili[1]``, ... The weight
        is called "weight", or "distilled_weight" where the data have a column "weight" of their own. The table's
        ``attrs`` say which model it serves.

        Args:
            whole: Whole outcomes only: a row whose binary, binomial or Poisson outcome is a fraction becomes several
                weighted rows with the same log-likelihood (``bayesdd.data.whole``).
            task: The task that the rows belong to, where ``distill`` has not recorded whether their fractions split.

        Raises:
            Refusal: The fractions do not split, or nobody knows whether they do.
        """
        data, weight = self.hard()
        if whole:
            verdict = self.provenance.get("splits") if task is None else splits(task, data)
            if verdict is None:
                raise Refusal(
                    "to_frame(whole=True) needs task=, the task that the rows belong to: this set does not record "
                    "whether its fractional outcomes split into whole rows."
                )
            data, weight = whole_rows(data, weight, verdict)
        if "sequences" in self.provenance and data["x"].ndim == 3:  # not probabilities of states
            frame = wide_table(data, weight, self.provenance["sequences"])
        else:
            frame = columns.to_frame({**data, weight_name(data): weight}, self.labels)
        return self._told(frame)

    def to_long(self) -> pd.DataFrame:
        """Sequences as a long table: one line a patient and step, with patient, time, variables and weight.

        Names, units and states are those of the sources (``bayesdd.dbn.Source.from_long``). Steps of which a row has no
        entry are left out; values beyond those observed are shown as the nearest observed, which a warning counts.

        Raises:
            Refusal: The rows are no sequences that ``bayesdd.dbn`` has made, or their categories are soft.
        """
        if "sequences" not in self.provenance:
            raise Refusal(
                "to_long() is for sequences that bayesdd.dbn.merge or federated has made; to_frame() serves any rows"
            )
        return self._told(long_table(self.data, self.weight, self.provenance["sequences"]))

    def _told(self, frame: pd.DataFrame) -> pd.DataFrame:
        named = {key: self.provenance[key] for key in ("task", "rows") if key in self.provenance}
        frame.attrs.update(about=ABOUT, **named)
        return frame

    def to_netcdf(self, path: str | os.PathLike[str]) -> None:
        """Write everything to one netCDF file, whole or not at all; equal objects give equal bytes.

        Raises:
            OSError: the file cannot be written (one line); an earlier file at `path` is unchanged.
            TypeError: the provenance holds something that JSON cannot.
        """
        dataset = sealed(_to_dataset(self))
        # Fletcher32: a flipped bit in the values is an error on reading, not another posterior.
        encoding = {name: {"_FillValue": None, "fletcher32": bool(v.size)} for name, v in dataset.variables.items()}
        with replacing(path) as part:
            dataset.to_netcdf(part, engine="netcdf4", format="NETCDF4", encoding=encoding)

    @classmethod
    def from_netcdf(cls, path: str | os.PathLike[str]) -> Distilled:
        """Read what `to_netcdf` wrote.

        Raises:
            FileNotFoundError: no such file.
            Refusal: a damaged file, a netCDF file that holds no distilled set, or one of a newer format. One of an
                earlier version, which has no content hash, is read with a warning.
        """
        from bayesdd.data import _netcdf

        dataset = load(path, _netcdf.read_as_it_is, "a netCDF file")
        version = dataset.attrs.get(DISTILLED_MARK)
        if version is None:
            raise Refusal(f"{path} holds no distilled set; give a file that Distilled.to_netcdf wrote")
        if np.ndim(version) or not isinstance(version, int | np.integer):
            raise Refusal(f"{path} is a damaged distilled set: its format is {str(version)[:40]!r}, not a number")
        if version > FORMAT:
            raise Refusal(f"{path} has format {version}, this bayesdd reads up to {FORMAT}; upgrade bayesdd")
        found = load(path, lambda _: _from_dataset(dataset), "a distilled set")
        check_seal(dataset, str(path))
        return found


def needed(value: Any, verb: str) -> Distilled:
    """The distilled set that a function was given.

    Raises:
        WrongType: It is anything else.
    """
    if isinstance(value, Distilled):
        return value
    if isinstance(value, str | os.PathLike):
        raise WrongType(f"{verb} needs a distilled set, got the path {str(value)!r}: read it by Distilled.from_netcdf")
    came = repr(value) if isinstance(value, int | float) else type(value).__name__
    raise WrongType(f"{verb} needs a distilled set (what bayesdd.distill returned), got {came}")


def _read(data: Any, labels: dict[str, Labels]) -> tuple[Columns, dict[str, Labels]]:
    """Columns of tensors, and all labels."""
    if isinstance(data, pd.DataFrame) or columns.is_dataset(data):
        found = columns.table(data, labels=labels or None)
        return found.columns, labels | found.labels
    if not isinstance(data, Mapping):
        raise WrongType(f"Distilled needs a mapping of columns or a data frame, got {type(data).__name__}")
    made = {}
    for name, value in data.items():
        # Tensors are codes already, which a search may have moved anywhere.
        known = () if isinstance(value, torch.Tensor) else labels.get(name)
        made[name], own = coded(value, f"column {name!r}", known)
        if own:
            labels = labels | {name: own}
    return made, labels


def explode(data: Columns, weight: Tensor, soft: Mapping[str, int]) -> tuple[Columns, Tensor]:
    """Hard rows of soft ones: every row K times with y = k and weight w q_k; differentiable.

    Args:
        data: Column -> ``(M, ...)``, soft ones ``(M, K)``.
        weight: Shape ``(M,)``.
        soft: Soft column -> K.

    Returns:
        Columns and weights of ``M * prod(K)`` rows, the classes of one row side by side.
    """
    for name, classes in soft.items():
        label = torch.arange(classes, device=weight.device).repeat(len(weight))
        weight = weight.repeat_interleave(classes) * data[name].flatten()
        data = {n: label if n == name else column.repeat_interleave(classes, 0) for n, column in data.items()}
    return data, weight


def union(parts: Sequence[Distilled]) -> Distilled:
    """Several sources' sets as one: log-likelihoods add, so rows and weights are concatenated.

    The result has no certificate until `certify` is asked. Its provenance keeps what all parts agree on, the sum of
    their rows, and the parts' own under "parts".

    Raises:
        Refusal: no parts, or parts whose columns, shapes, types or soft columns differ.

    Example:
        >>> both = bayesdd.union([distilled, distilled])  # two sources' sets
        >>> len(both)
        12
    """
    if isinstance(parts, Distilled) or not isinstance(parts, Sequence):
        raise WrongType(f"union() needs a list of distilled sets, got {type(parts).__name__}: union([a, b])")
    if not parts:
        raise Refusal("union() needs at least one distilled set, got none")
    parts = [needed(part, f"union(): part {i}") for i, part in enumerate(parts)]
    for i, part in enumerate(parts[1:], start=1):
        refuse_difference(described(part.data), described(parts[0].data), f"union(): part {i}: column", "part 0")
        if part.soft != parts[0].soft:
            raise Refusal(f"union() needs equal soft columns, part {i} has {part.soft}, part 0 {parts[0].soft}")
        for name in {**part.labels, **parts[0].labels}:
            theirs, ours = (p.labels.get(name) for p in (part, parts[0]))
            if theirs != ours:
                raise Refusal(
                    f"union(): part {i}: column {name!r} has the labels {theirs}, but {ours} in part 0; distil both "
                    "from columns of the same pandas categories"
                )
    provenances = [part.provenance for part in parts]
    shared = {key: value for key, value in provenances[0].items() if all(p.get(key) == value for p in provenances)}
    if all("rows" in p for p in provenances):
        shared["rows"] = sum(p["rows"] for p in provenances)
    return Distilled(
        data={name: torch.cat([part.data[name] for part in parts]) for name in parts[0].data},
        weight=torch.cat([part.weight for part in parts]),
        soft=dict(parts[0].soft),
        provenance={**shared, "size": sum(map(len, parts)), "parts": provenances},
        labels=dict(parts[0].labels),
    )


def described(data: Mapping[str, Tensor]) -> dict[str, str]:
    """Columns in words, to compare sets by: type, and shape of a row."""
    kind = {True: "real", False: "integer"}
    return {name: f"{kind[v.is_floating_point()]} of shape {tuple(v.shape[1:])} a row" for name, v in data.items()}


def refuse_difference(ours: dict[str, str], theirs: dict[str, str], what: str, other: str) -> None:
    """Names the first entry that two descriptions do not share.

    Raises:
        Refusal: There is one.
    """
    for name in {**ours, **theirs}:
        mine, yours = ours.get(name, "absent"), theirs.get(name, "absent")
        if mine != yours:
            raise Refusal(f"{what} {name!r} is {mine}, but {yours} in {other}")


def _to_dataset(distilled: Distilled) -> xr.Dataset:
    import xarray as xr

    weight = weight_name(distilled.data)
    values = {**distilled.data, weight: distilled.weight}
    row = free_name("row", values)
    variables = {
        name: ([row, *(free_name(f"{name}_dim_{i}", values) for i in range(value.ndim - 1))], value.numpy())
        for name, value in values.items()
    }
    attrs: dict[str, Any] = {DISTILLED_MARK: FORMAT, "about": ABOUT, "weight": weight}
    attrs.update(soft=json.dumps(distilled.soft), provenance=json.dumps(distilled.provenance))
    if distilled.labels:
        attrs["labels"] = json.dumps(distilled.labels)
    if distilled.certificate is not None:
        attrs["certificate"] = json.dumps(distilled.certificate.to_dict())
    return xr.Dataset(variables, attrs=attrs)


def _from_dataset(dataset: xr.Dataset) -> Distilled:
    certificate = from_dict(_mapping(dataset, "certificate")) if "certificate" in dataset.attrs else None
    # A copy: netCDF4 may hand out read-only arrays, which torch warns about.
    values = {str(name): torch.from_numpy(variable.values.copy()) for name, variable in dataset.variables.items()}
    weight = values.pop(dataset.attrs["weight"])
    labels = (
        {name: tuple(some) for name, some in _mapping(dataset, "labels").items()} if "labels" in dataset.attrs else {}
    )
    soft, provenance = _mapping(dataset, "soft"), _mapping(dataset, "provenance")
    return Distilled(values, weight, certificate, soft, provenance, labels)


def _mapping(dataset: xr.Dataset, name: str) -> dict[str, Any]:
    """An attribute that holds a JSON mapping."""
    found = json.loads(dataset.attrs[name])
    if not isinstance(found, dict):
        raise Refusal(f"its attribute {name!r} is no mapping")
    return found
