"""Task: a Pyro model with its real rows. Two primitives carry everything else: ``log_prior`` and ``log_likelihood``."""

from __future__ import annotations

import copy
import functools
import pickle
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from torch.func import vmap

from bayesdd.data.columns import WEIGHT, Columns
from bayesdd.data.names import Selection
from bayesdd.data.rows import Held, Rows, opened
from bayesdd.data.values import Label
from bayesdd.numerics import words
from bayesdd.numerics.exclusive import exclusive
from bayesdd.numerics.refusal import Refusal, WrongType
from bayesdd.task import contract, kinds, naming, refusals
from bayesdd.task.engine import Expansion
from bayesdd.task.engines import Engines
from bayesdd.task.identity import model_hash, unwrapped
from bayesdd.task.kinds import Kind
from bayesdd.task.program import Program, Structure, observations, running, simulate, unconstrained, values
from bayesdd.task.refusals import BLOCK
from bayesdd.task.simulation import simulated, stacked
from bayesdd.task.supports import supported, upper_bounds

PACKED = 4  # rows that a packed task keeps, which its bytes a cell are counted with


@dataclass(frozen=True, eq=False, repr=False)
class Task(words.Described):
    """An inference task: one Pyro model, one row plate, the real rows.

    The model is called as ``model(**columns)``, one keyword a column, leading axis = rows; arguments with defaults need
    no column. Observed sites stand in the row plate; latent sites are global and continuous. What Pyro would pass over
    in silence is checked here: one value per row, no statistics across rows, a prior that ignores the rows, finite
    log-likelihoods and gradients.

    Args:
        model: A plain Pyro model.
        data: Mapping name -> array or tensor ``(N, ...)``, ``xarray.Dataset``, data frame (pandas, polars, pyarrow, a
            DuckDB relation, dask, Spark), a path (.nc, .npz, .csv, .zarr, .parquet, .arrow; also a folder or a pattern
            of the last two), or a query of DuckDB (``"SELECT ..."``). Text and categoricals become codes of their
            labels. Rows above 512 MiB, .npz and .csv apart, stay where they are, fewer by ``bayesdd.on_disk(...)``;
            ``data`` is then a sample of them. The checks look at the sample now, at the other rows when they are first
            swept.
        plate: Name of the row plate; needed only where several plates are as long as the rows.
        kinds: Kinds of columns (``bayesdd.kinds``) that override the inferred ones.
        columns: Which columns of the data: a list of names, or argument -> name, or argument -> list of names, an array
            column. Default: those that the model takes; the others are left out, with a ``DataNote``.
        labels: Column of text -> its labels in the order of their codes; default sorted, or as a categorical has them.
        dims: Site or array column -> names of the dimensions of its values (of a row), as in PyMC.
        coords: Dimension -> names along it; default the labels of the column of that name.
        weight: Column that says how often each row counts (equal rows grouped, survey weights): its log-likelihood is
            multiplied by it. Positive; it is no argument of the model.

    Attributes:
        rows: All rows, wherever they live.
        size: Number N of rows.
        dim: Number P of unconstrained latent coordinates.
        sites: Latent site -> constrained shape.
        column_kinds: Column -> kind.

    Raises:
        Refusal: The rows or the model break the contract; the message names the site or column and the remedy.
        WrongType: ``model`` is not callable, or a column is not numeric.

    Example:
        >>> task = bayesdd.Task(model, {"x": x, "y": y})
        >>> task.size, task.dim  # rows, latent coordinates
        (200, 2)
    """

    model: Callable[..., Any]
    data: Any
    plate: str | None = None
    kinds: Mapping[str, Kind] = field(default_factory=dict)
    columns: Selection | None = field(default=None, kw_only=True)
    labels: Mapping[str, Sequence[Label]] = field(default_factory=dict, kw_only=True)
    dims: Mapping[str, Sequence[str]] = field(default_factory=dict, kw_only=True)
    coords: Mapping[str, Sequence[Any]] = field(default_factory=dict, kw_only=True)
    weight: str | None = field(default=None, kw_only=True)
    rows: Rows = field(init=False, repr=False)
    program: Program = field(init=False, repr=False)
    column_kinds: dict[str, Kind] = field(init=False, repr=False)
    backend: str = field(init=False, repr=False)
    names: naming.Names = field(init=False, repr=False)

    @exclusive
    def __post_init__(self) -> None:
        if not callable(self.model):
            raise WrongType(f"Task needs a Pyro model (a function of the columns), got {type(self.model).__name__}.")
        choose = functools.partial(contract.chosen, self.model, name=self.name, explicit=self.columns is not None)
        rows = opened(self.data, self.columns, choose, self.labels, self.weight)
        program, columns = refusals.program_of(self.model, self.plate, self.name, rows.sample, rows.number)
        inferred = kinds.infer(columns, program.structure.observed, self.kinds)
        verdict = contract.contract(program, columns, inferred, rows.number)
        structure = replace(program.structure, deterministic=verdict.deterministic)
        unordered = {column: some for column, some in rows.labels.items() if column not in self.labels}
        naming.note_of_successes(self.name, structure.observed, unordered)
        inferred |= dict.fromkeys(verdict.rigid - self.kinds.keys(), kinds.fixed)
        seen = {site.column for site in structure.observed}
        # What the log-likelihood has no gradient in moves by the user's word alone.
        felt = columns.keys() - verdict.rigid
        unstated = felt - seen - self.kinds.keys()
        put = functools.partial(object.__setattr__, self)
        put("data", columns)
        put("rows", rows.like(columns))
        put("program", replace(program, structure=structure))
        put("plate", program.plate)
        put("kinds", dict(self.kinds))
        put("column_kinds", supported(program, verdict.backend, columns, inferred, felt, unstated, verdict.draws))
        put("backend", verdict.backend)
        put("labels", dict(rows.labels))
        sites = [*self.sites, *verdict.deterministic]
        named = [*columns, *(o.name for o in structure.observed if o.column)]
        names = naming.checked(self.dims, self.coords, self._shape, sites, named, self.labels, rows.parts)
        put("dims", names.dims)
        put("coords", names.coords)
        put("names", names)

    @property
    def _said(self) -> tuple[str, dict[str, str]]:
        """What it is in a line, and its columns and sites."""
        columns = (
            f"{words.sized(name, column.shape[1:])} {self.column_kinds[name].name}{self._coding(name)}"
            for name, column in self.data.items()
        )
        observed = (o.name if o.column in (None, o.name) else f"{o.name} ({o.column})" for o in self.structure.observed)
        return f"Task {self.name}: {self.size:,} rows, {self.dim:,} unconstrained parameters", {
            "columns": words.listed(columns),
            "latent": words.listed(words.sized(name, shape) for name, shape in self.sites.items()),
            "observed": words.listed(observed),
        }

    def _coding(self, name: str) -> str:
        """The labels of a column's codes, from 0 on, in brackets."""
        return f" ({words.listed(self.labels[name])})" if name in self.labels else ""

    @property
    def size(self) -> int:
        """Number N of real rows."""
        return self.rows.size

    @property
    def total(self) -> float:
        """Sum of the rows' weights, of rows that are not all in memory estimated; N where each counts once."""
        weight = self.rows.sample_weight
        return float(self.size) if weight is None else self.size * float(weight.mean())

    def refuse_weights(self, verb: str) -> None:
        """For what looks at rows one by one, which weighted rows are not.

        Raises:
            Refusal: The rows have weights.
        """
        if self.rows.sample_weight is not None:
            raise Refusal(
                f"{verb} looks at rows one by one, and each of {self.name} counts {self.weight or 'several'} times: "
                "repeat the rows (x.repeat_interleave(count, 0)) and leave weight= or grouped() out"
            )

    @property
    def structure(self) -> Structure:
        """Latent, observed and deterministic sites of the model."""
        return self.program.structure

    @property
    def dim(self) -> int:
        """Number P of unconstrained latent coordinates."""
        return self.structure.dim

    @property
    def sites(self) -> dict[str, tuple[int, ...]]:
        """Latent site -> constrained shape."""
        return {site.name: site.shape for site in self.structure.sites}

    @property
    def soft(self) -> dict[str, int]:
        """Soft columns -> number of classes."""
        return {name: kind.classes for name, kind in self.column_kinds.items() if kind.classes}

    @property
    def discrete(self) -> tuple[str, ...]:
        """Columns that discrete sites observe, and those with their numbers of trials, in the order of the data."""
        sites = [o for o in self.structure.observed if o.discrete]
        found = {o.column for o in sites}
        bounds = [bound for o in sites if isinstance(bound := getattr(o.support, "upper_bound", None), Tensor)]
        return tuple(
            name
            for name, column in self.data.items()
            if name in found or any(bound.dim() and torch.equal(column[: len(bound)], bound) for bound in bounds)
        )

    @property
    def outcomes(self) -> frozenset[str]:
        """Columns that are observed: as they are, or, where the model can do without them, as what it makes of them."""
        optional = contract.optional(self.model, list(self.data))
        return frozenset(
            column
            for o in self.structure.observed
            for column in ((o.column,) if o.column else o.sources)
            if column == o.column or column in optional
        )

    @property
    def name(self) -> str:
        """``module:function`` of the model."""
        function = unwrapped(self.model)
        return f"{getattr(function, '__module__', '?')}:{getattr(function, '__qualname__', type(function).__name__)}"

    @property
    def unidentified(self) -> bool:
        """Whether it binds an object that says so of its parameters: a network, whose units can change places."""
        return any(getattr(value, "unidentified", False) for value in getattr(self.model, "keywords", {}).values())

    @property
    def model_hash(self) -> str:
        """SHA-256 of the model's source and what is bound to it."""
        return model_hash(self.model)

    @functools.cached_property
    def bytes_per_cell(self) -> float:
        """Bytes of intermediate tensors that one row at one draw takes."""
        few = {name: column[:4] for name, column in self.data.items()}
        return self._engines.rows.bytes_per_cell(torch.zeros(4, self.dim, dtype=torch.float64), few)

    def _shape(self, name: str) -> tuple[int, ...] | None:
        """Shape of a site's value, or of a column's in one row; None of anything else."""
        column = next((o.column for o in self.structure.observed if o.name == name and o.column), name)
        if name in self.structure.deterministic:
            return tuple(self.constrain(torch.zeros(1, self.dim, dtype=torch.float64))[name].shape[1:])
        return self.sites.get(name, tuple(self.data[column].shape[1:]) if column in self.data else None)

    def check(self, rows: Columns, first: int) -> None:
        """Refuses a block from disk, whose first row has the number ``first``, if it breaks the model's contract."""
        refusals.supported(self.program, rows, lambda at: first + at)

    def with_data(self, data: Any, columns: Selection | None = None, weight: str | None = None) -> Task:
        """The same model, plate, kinds, labels and names on other rows (checked anew).

        Rows come as the task's own did, or under the names of the model's arguments, or as ``columns`` says. A label
        that the task has not seen is refused. ``weight`` names their column of weights; default that of the task.
        """
        again = columns is None
        select = self.columns if columns is None else columns
        choose = functools.partial(contract.chosen, self.model, name=self.name, explicit=select is not None)
        weight = self.weight if weight is None else weight
        rows = opened(data, select, choose, self.labels, weight, again=again)
        return replace(self, data=rows, columns=select, weight=weight)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in ("_engines", "packed")}

    @functools.cached_property
    def packed(self) -> bytes:
        """Itself with few of its rows, small enough to be sent along with draws; ``unpacked`` is the inverse."""
        from cloudpickle import dumps  # knows models of notebooks too; comes with dask and with the extra spark

        few, found = {name: column[:PACKED].clone() for name, column in self.data.items()}, copy.copy(self)
        for name, value in {"data": few, "rows": Held(few)}.items():
            object.__setattr__(found, name, value)
        sent: bytes = dumps(found)
        return sent

    def with_whole_outcomes(self) -> Task:
        """The same task with discrete outcomes that stay values that occur: counts of kind ``whole``, classes fixed."""
        held = {name: kinds.whole if self.data[name].is_floating_point() else kinds.fixed for name in self.discrete}
        found = copy.copy(self)
        object.__setattr__(found, "column_kinds", self.column_kinds | held)
        return found

    def log_prior(self, draws: Tensor) -> Tensor:
        """Log prior density of unconstrained draws, Jacobian included, nats: ``(S, P)`` -> ``(S,)``."""
        return self.log_prior_by_site(draws).sum(1)

    def log_prior_by_site(self, draws: Tensor) -> Tensor:
        """As ``log_prior``, one column a latent site, the last for ``pyro.factor``: ``(S, sites + 1)``."""
        return self._engines.prior(draws, self._first(draws.device))

    def log_likelihood(self, rows: Columns, draws: Tensor) -> Tensor:
        """Log-likelihood of every row at every draw, nats; differentiable in draws and in floating columns.

        Args:
            rows: Column -> ``(M, ...)``.
            draws: Unconstrained draws, shape ``(S, P)``.

        Returns:
            Shape ``(S, M)``.
        """
        return self._engines.rows(draws, rows)

    def likelihood_gradient(self, rows: Columns, weight: Tensor, draws: Tensor) -> tuple[Tensor, Tensor]:
        """Weighted log-likelihood ``(S,)`` and its gradient in the draws ``(S, P)``, as one recorded graph."""
        return self._engines.likelihood_slope(draws, {**rows, WEIGHT: weight})

    def likelihood_hessian(self, rows: Columns, weight: Tensor, point: Tensor) -> Expansion | None:
        """Weighted log-likelihood, gradient ``(P,)`` and Hessian ``(P, P)`` at a point; None where not batched."""
        return self._engines.likelihood_curvature(point, {**rows, WEIGHT: weight})

    def joint_gradient(self, rows: Columns, weight: Tensor, draws: Tensor) -> tuple[Tensor, Tensor]:
        """Log prior plus weighted log-likelihood ``(S,)`` and its gradient in the draws ``(S, P)``, as one graph."""
        return self._engines.joint_slope(draws, {**rows, WEIGHT: weight})

    def prior_gradient(self, kept: Tensor, draws: Tensor) -> tuple[Tensor, Tensor]:
        """Log prior ``(S,)`` of the sites that ``kept`` counts (``(sites + 1,)``, 0 or 1), and its gradient."""
        return self._engines.prior_slope(draws, {**self._first(draws.device), WEIGHT: kept})

    def constrain(self, draws: Tensor) -> dict[str, Tensor]:
        """Latent and global deterministic sites in the model's own units: name -> ``(S, *shape)``."""
        row = self._first(draws.device)

        def single(flat: Tensor) -> Columns:
            return values(self.program, flat, row)

        with running(draws.device):
            if self.backend != "loop":
                found: Columns = vmap(single)(draws)
                return found
            return stacked([single(draw) for draw in draws])

    def unconstrain(self, values: Columns) -> Tensor:
        """Inverse of ``constrain``: latent site -> ``(S, *shape)`` to unconstrained draws ``(S, P)``.

        Raises:
            Refusal: A draw lies outside the support of its site, or on its boundary.
        """
        row = self._first("cpu")

        def single(one: Columns) -> Tensor:
            return unconstrained(self.program, one, row)[0]

        with torch.no_grad(), running():
            if self.backend != "loop":
                flat: Tensor = vmap(single)(values)
            else:
                count = len(next(iter(values.values())))
                flat = torch.stack([single({name: v[i] for name, v in values.items()}) for i in range(count)])
        for site in self.structure.sites:
            if not bool(torch.isfinite(flat[:, site.start : site.stop]).all()):
                raise Refusal(
                    f"{self.name}: some draws of site {site.name!r} lie outside the support of its prior, or on the "
                    "boundary: were they drawn from another model?"
                )
        return flat

    def observations(self, rows: Columns) -> Columns:
        """What each observed site sees of its column, NaN where masked: site -> ``(rows, ...)``."""
        count, found = len(next(iter(rows.values()))), list[Columns]()
        for start in range(0, count, BLOCK):
            block = {name: column[start : start + BLOCK] for name, column in rows.items()}
            found.append(observations(self.program, block))
        names = [o.name for o in self.structure.observed if (o.column or o.sources) and o.name in found[0]]
        return {name: torch.cat([block[name] for block in found]) for name in names}

    def upper_bounds(self, rows: Columns) -> Columns:
        """Upper bound of every bounded column (Binomial's trials) at given rows: column -> shape of the column."""
        return upper_bounds(self.program, self.column_kinds, rows)

    def simulate(self, rows: Columns, values: dict[str, Tensor], seed: int) -> dict[str, Tensor]:
        """Posterior predictive draws of the observed sites whose columns are left out.

        Args:
            rows: Columns of the new rows, ``(M, ...)`` each.
            values: Constrained latents, name -> ``(S, *shape)``.
            seed: Seed.

        Returns:
            Observed site -> ``(S, M, ...)``.
        """
        return simulated(functools.partial(simulate, self.program), rows, values, seed, self.backend)

    def prior_draws(self, count: int, seed: int) -> Tensor:
        """Unconstrained draws from the prior, shape ``(count, P)``; draw i depends on seed + i alone, and is kept."""
        return self._engines.prior_draws(self._first("cpu"), count, seed)

    def _first(self, device: torch.device | str) -> Columns:
        return {name: column[:1].to(device) for name, column in self.data.items()}

    @functools.cached_property
    def _engines(self) -> Engines:
        return Engines(self.program, self.backend)


@functools.lru_cache(maxsize=16)
def unpacked(packed: bytes) -> Task:
    """The task of ``Task.packed``; the same object for the same bytes, with the graphs that it has recorded."""
    found: Task = pickle.loads(packed)
    return found
