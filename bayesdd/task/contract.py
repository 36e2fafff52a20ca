"""Checks of a model's arguments, and of its numbers: rows apart and together, prior, values, gradients."""

from __future__ import annotations

import functools
import inspect
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from bayesdd.data.columns import Columns, DataNote
from bayesdd.data.names import closest
from bayesdd.numerics.refusal import Refusal
from bayesdd.task.engine import Engine, choose_backend, derivatives
from bayesdd.task.kinds import Kind
from bayesdd.task.program import Model, Program, evaluate, joined, running, values
from bayesdd.task.refusals import equal_sites, explained, run
from bayesdd.task.starts import finite_starts

ROWS_COMPARED = 6
MOST_EMPTY = 16  # groups without rows, above the largest that there is


class Verdict(NamedTuple):
    """What the numbers show: the backend, columns without a gradient, deterministic sites free of the rows.

    ``draws``: the latents ``(2, P)`` at which they were looked at.
    """

    backend: str
    rigid: frozenset[str]
    deterministic: tuple[str, ...]
    draws: Tensor


def chosen(model: Model, names: Sequence[str], name: str, *, explicit: bool) -> list[str]:
    """Which columns the model takes, by the names of its arguments; a note names those that are left out.

    Args:
        model: The model.
        names: Names of the columns that there are.
        name: The model's name in messages.

        explicit: The user has named these columns, so that none is left out.

    Raises:
        Refusal: An argument has no column, a column's name resembles such an argument, or the model cannot be called
            by keyword.
    """
    try:
        parameters = inspect.signature(getattr(model, "forward", model)).parameters
    except (TypeError, ValueError):
        return list(names)
    bound = set(getattr(model, "keywords", {}))
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    open_ones = [
        p for p in parameters.values() if p.name not in bound and p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)
    ]
    taken = {p.name for p in open_ones} | (set(names) - bound if takes_any else set())
    left = [column for column in names if column not in taken]
    empty = [p.name for p in open_ones if p.name not in names and (p.default is p.empty or p.default is None)]
    if clash := [column for column in left if column in bound]:
        raise Refusal(
            f"{name} has {clash} bound by functools.partial, but the data also have {clash}: drop one, or leave the "
            "columns out by columns=[...]."
        )
    for column in left:
        if meant := closest(column, empty):
            raise Refusal(
                f"{name} has an argument {meant!r} without a column, and the data a column {column!r}: did you mean "
                f"columns={{{meant!r}: {column!r}, ...}}? Else leave the column out by columns=[...]."
            )
    if positional := [p.name for p in open_ones if p.kind is p.POSITIONAL_ONLY and p.default is p.empty]:
        raise Refusal(f"{name} is called by keyword, but {positional} are positional only: leave out the `/`.")
    if missing := [p.name for p in open_ones if p.default is p.empty and p.name not in names]:
        raise Refusal(
            f"{name} needs the columns {missing}, but the data have {sorted(names)}: add them, name them by columns=, "
            "or bind constants with functools.partial."
        )
    if left and explicit:
        raise Refusal(f"{name} takes the columns {[p.name for p in open_ones]}, but columns= names {left}: drop them.")
    if left:
        warnings.warn(f"{name} takes no columns {left}: they are left out", DataNote, stacklevel=7)
    return [column for column in names if column in taken]


def optional(model: Model, names: Sequence[str]) -> list[str]:
    """Which columns a model can be called without: those with the default None, and those that it has no name for."""
    try:
        parameters = inspect.signature(getattr(model, "forward", model)).parameters
    except (TypeError, ValueError):
        return []
    return [name for name in names if name not in parameters or parameters[name].default is None]


def contract(program: Program, columns: Columns, kinds: Mapping[str, Kind], number: Callable[[int], int]) -> Verdict:
    """Row independence, a prior that ignores the rows, finite values and gradients.

    Args:
        program: The model.
        columns: The rows to look at, column -> ``(n, ...)``.
        kinds: Kind of each column.
        number: Place of a row among them -> its number in messages.

    Raises:
        Refusal: The model breaks the contract.
    """
    last = len(next(iter(columns.values()))) - 1
    spread = {round(i * last / (ROWS_COMPARED - 1)) for i in range(ROWS_COMPARED)}
    picks = sorted(spread | _telling(columns))
    few = {key: column[picks] for key, column in columns.items()}
    singles = [{key: column[i : i + 1] for key, column in few.items()} for i in range(len(picks))]
    for rows in [few, *singles]:
        equal_sites(run(program, rows)[0], program)
    single = functools.partial(joined, program)
    with torch.random.fork_rng(devices=[]):  # for models that draw random numbers of their own, to be refused here
        draws = _two_starts(program, columns, few, number)
        try:
            _independent(program, draws, few, singles)
            backend, _ = choose_backend(single, draws, few)
            found = derivatives(Engine(single, backend), draws, few)
        except Exception as error:
            raise explained(error, program) from error
    movable = [name for name in few if kinds[name].to_free is not None]
    _finite_gradients(program, few, movable, [number(pick) for pick in picks], found)
    rigid = frozenset(key for key in few if key in found and found[key] is None)  # a group index held as floats
    _from_the_end(program, draws, columns, rigid, number)
    return Verdict(backend, rigid, _free_of_rows(program, draws[0], singles), draws)


def _two_starts(program: Program, columns: Columns, few: Columns, number: Callable[[int], int]) -> Tensor:
    """Two points, the first finite at all rows, the second at a few rows, which is quicker."""
    first = finite_starts(program, columns, 1, number=number)[0]
    others = finite_starts(program, few, 2)
    return torch.stack([first, others[0] if torch.equal(first, others[1]) else others[1]])


def _telling(columns: Columns) -> set[int]:
    """Rows with the smallest integer (they show shapes that follow the largest group index) or a missing entry."""
    found = set()
    for column in columns.values():
        flat = column.reshape(len(column), -1)
        if not column.is_floating_point():
            found.add(int(flat[:, 0].argmin()) if flat.numel() else 0)
        elif bool(flat.isnan().any()):
            found.add(int(flat.isnan().any(1).int().argmax()))
    return found


def _independent(program: Program, draws: Tensor, few: Columns, singles: list[Columns]) -> None:
    """Two runs give the same, and rows together give what they give apart."""
    name, loop = program.name, Engine(functools.partial(joined, program), "loop")
    together, again = loop(draws, few), loop(draws, few)
    if not torch.equal(together.nan_to_num(), again.nan_to_num()):
        raise Refusal(
            f"{name}: the log density changes from run to run: random numbers are drawn outside pyro.sample (dropout, "
            "torch.randn); leave them out, or draw them beforehand."
        )
    apart = torch.stack([loop(draws, row) for row in singles])
    sites = program.structure.sites
    priors = len(sites) + 1
    same = functools.partial(torch.allclose, rtol=1e-7, atol=1e-7, equal_nan=True)
    prior, prior_apart = together[:, :priors], apart[:, :, :priors]
    if not same(prior_apart, prior.expand_as(prior_apart)):
        wrong = (prior_apart - prior).abs().amax((0, 1)).nan_to_num(0.0).argmax()
        site = [*(s.name for s in sites), "pyro.factor"][int(wrong)]
        raise Refusal(
            f"{name}: the prior of site {site!r} depends on which rows are there: compute such constants (y.std(), "
            "x.mean(0)) beforehand and bind them with functools.partial."
        )
    if not same(apart[:, :, priors:].squeeze(2).T, together[:, priors:]):
        raise Refusal(
            f"{name}: the log-likelihood of a row changes with the rows beside it (a statistic across rows, such as "
            "x.mean(0), or an (N, 1) against an (N,)): make each row's density depend on that row alone."
        )


def _finite_gradients(
    program: Program, few: Columns, movable: list[str], numbers: list[int], found: dict[str, Tensor | None]
) -> None:
    remedy = "NaN under a mask still has a NaN gradient; fill it with nan_to_num before it is used"
    slope = found["draws"]
    if slope is not None:
        for site in program.structure.sites:
            if not bool(torch.isfinite(slope[:, site.start : site.stop]).all()):
                raise Refusal(f"{program.name}: the gradient for site {site.name!r} is not finite: {remedy}.")
    for name in movable:
        slope = found.get(name)
        if slope is None:
            continue
        bad = ~(torch.isfinite(slope) | few[name].isnan())
        if bool(bad.any()):
            row = numbers[int(bad.reshape(len(bad), -1).any(1).nonzero()[0])]
            raise Refusal(
                f"{program.name}: the gradient for column {name!r} is not finite in row {row}: {remedy}, or keep the "
                f"column as it is by Task(..., kinds={{{name!r}: bayesdd.kinds.fixed}})."
            )


def _from_the_end(
    program: Program, draws: Tensor, columns: Columns, rigid: frozenset[str], number: Callable[[int], int]
) -> None:
    """Warns of -1 as a group, such as pandas' code of a missing one: an index counts it from the end.

    The log-likelihood is then that of the last group, which is the largest index that the model takes.
    """
    engine = Engine(lambda flat, rows: evaluate(program, flat, rows)[1], "loop")
    for name, column in columns.items():
        if column.dim() > 1 or (column.is_floating_point() and name not in rigid) or not bool((column == -1).any()):
            continue
        row = int((column == -1).int().argmax())
        here = {key: other[row : row + 1] for key, other in columns.items()}

        def at(value: float, here: Columns = here, name: str = name) -> Tensor | None:
            try:
                with torch.no_grad():
                    return engine(draws, {**here, name: torch.full_like(here[name], value)})
            except Exception:  # there is no such group, by errors of many types
                return None

        largest = int(column[~column.isnan()].max())
        found = [at(value) for value in range(largest + MOST_EMPTY + 1)]
        groups = [value for value in found if value is not None]
        if len(groups) in (0, len(found)) or all(torch.equal(groups[0], one) for one in groups):
            continue
        last = at(-1)
        if last is not None and torch.equal(last, groups[-1]):
            warnings.warn(
                f"{program.name}: column {name!r} is -1 in row {number(row)} and others, which an index counts from "
                f"the end: as group {len(groups) - 1}, the last. Leave out rows whose group is missing, or give them a "
                "group of their own.",
                UserWarning,
                stacklevel=6,
            )


def _free_of_rows(program: Program, draw: Tensor, singles: list[Columns]) -> tuple[str, ...]:
    """Deterministic sites with the same value at every row: these are functions of the latents alone."""
    with torch.no_grad(), running():
        found = [values(program, draw, rows) for rows in singles]
    return tuple(
        name
        for name in program.structure.deterministic
        if all(v[name].shape == found[0][name].shape and torch.equal(v[name], found[0][name]) for v in found)
    )
