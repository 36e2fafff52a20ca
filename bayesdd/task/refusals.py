"""What a model may not contain, refused at the site when a Task is made; Pyro is silent about most of it.

Every message, here and in ``contract``, is one line that names the model, the site or column, what came and what to
write instead.
"""

from __future__ import annotations

import functools
import inspect as introspection
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch
from pyro.distributions import Independent, MaskedDistribution, Unit
from pyro.poutine.subsample_messenger import _Subsample
from torch import Tensor

from bayesdd.data.columns import Columns
from bayesdd.data.files import one_line
from bayesdd.numerics import words
from bayesdd.numerics.refusal import Refusal
from bayesdd.task.inspection import inspect, plates
from bayesdd.task.kinds import RELAXED
from bayesdd.task.observed import observed
from bayesdd.task.program import Message, Model, Program, Structure, base, is_deterministic, row_frame, running

BLOCK = 65_536  # rows checked together, so that memory stays bounded
FEW = 6  # rows at which supports are compared between draws
PLATE = "data"  # the name in advice to a model that has no row plate


def program_of(
    model: Model, plate: str | None, name: str, columns: Columns, number: Callable[[int], int]
) -> tuple[Program, Columns]:
    """Runs the model on all rows given and reads its sites; observations become float64, classes apart.

    ``name`` is the model's in messages, ``number`` maps the place of a row to its number in them; without ``plate`` the
    row plate is the one that holds the observed sites.

    Raises:
        Refusal: The model breaks the contract, or fails on its own columns.
    """
    first = {key: column[:BLOCK] for key, column in columns.items()}
    plate = plate or _row_plate(model, name, first)
    program = Program(model, Structure((), (), ()), plate, name)
    for start in range(0, len(next(iter(columns.values()))), BLOCK):
        rows = {key: column[start : start + BLOCK] for key, column in columns.items()} if start else first
        here, messages = run(program, rows)
        if start == 0:
            _steady_supports(program, {key: column[:FEW] for key, column in first.items()})
            _scaled_priors(name, messages)
            program = replace(program, structure=here)
            program = replace(program, structure=replace(here, observed=observed(program, first)))
        _accepted(program, here, messages, functools.partial(_numbered, number, start))
    found = program.structure
    if not found.observed:
        raise Refusal(
            f"{name} observes nothing in plate {plate!r}: give pyro.sample(..., obs=column) "
            f"inside `with pyro.plate({plate!r}, len(column)):`."
        )
    if not found.sites:
        raise Refusal(f"{name} has no latent site: there is no posterior to distil.")
    if constants := float32_constants(model):
        warnings.warn(
            f"{name} uses the float32 constant {', '.join(constants)} among float64 rows, "
            "with seven digits only: write it as .double().",
            UserWarning,
            stacklevel=5,
        )
    relaxed = {o.column for o in found.observed if o.column and (o.distribution in RELAXED or not o.discrete)}
    return program, {key: column.double() if key in relaxed else column for key, column in columns.items()}


def _row_plate(model: Model, name: str, columns: Columns) -> str:
    """Name of the plate of the rows that holds the observed sites; where there is none, a name for the refusal.

    Raises:
        Refusal: Several plates as long as the rows stand around the same sites, however many rows there are.
    """
    rows = len(next(iter(columns.values())))
    stacks = plates(model, columns)
    names = dict.fromkeys(frame.name for stack in stacks for frame in stack if frame.size == rows)
    if rows > 1 and any(len([f for f in stack if f.name in names]) > 1 for stack in stacks):
        # A plate of steps or groups may be as long as the rows: it stays so where there are fewer of them.
        fewer = plates(model, {key: column[: rows - 1] for key, column in columns.items()})
        shorter = {frame.name for stack in fewer for frame in stack if frame.size == rows - 1}
        names = {plate: None for plate in names if plate in shorter} or names
        if any(len([f for f in stack if f.name in names]) > 1 for stack in stacks):
            raise Refusal(
                f"{name}: the plates {list(names)} are all as long as the rows and hold the observed sites: say which "
                "is the rows' by Task(..., plate=...)."
            )
    if names:
        return PLATE if PLATE in names else next(iter(names))
    others = dict.fromkeys(frame.name for stack in stacks for frame in stack)
    return next(iter(others)) if len(others) == 1 else PLATE


def _numbered(number: Callable[[int], int], first: int, row: int) -> int:
    return number(first + row)


def supported(program: Program, rows: Columns, number: Callable[[int], int]) -> None:
    """One run of the model on a block: sites as known, observed values in their supports.

    Raises:
        Refusal: They are not; names the row.
    """
    _accepted(program, *run(program, rows), number)


def _accepted(program: Program, here: Structure, messages: list[Message], number: Callable[[int], int]) -> None:
    equal_sites(here, program)
    for message in messages:
        _support(message, program, number)


def run(program: Program, columns: Columns, seed: int = 0) -> tuple[Structure, list[Message]]:
    """``inspect``, with any error of the model's as one line that names the model."""
    try:
        return inspect(program.model, columns, program.plate, seed, functools.partial(_refuse, program.name))
    except IndexError as error:
        raise Refusal(f"{explained(error, program)}{_groups(columns)}") from error
    except Exception as error:
        raise explained(error, program, columns) from error


def _groups(columns: Columns) -> str:
    """What an index may have gone wrong by: groups that do not count from 0, missing ones."""
    found = []
    for name, column in columns.items():
        there = column[~column.isnan()]
        if column.is_floating_point() and len(there) < column.numel() and bool((there == there.round()).all()):
            found.append(f"{name!r} has missing entries, so that its codes are floats and cannot be an index")
        elif not column.is_floating_point():
            found.append(f"{name!r} runs from {int(column.min())} to {int(column.max())}")
    return f" (groups are integers from 0 on; {words.listed(found)})" if found else ""


def _steady_supports(program: Program, rows: Columns) -> None:
    """Where an outcome can be must not follow the latents: of some of them the likelihood would be zero."""
    found = [
        {m["name"]: _ends(m["fn"].support) for m in run(program, rows, seed)[1] if _observed(m, program.plate)}
        for seed in (0, 1)
    ]
    for name, ends in found[0].items():
        others = found[1].get(name, ends)
        if any(not torch.equal(one, other) for one, other in zip(ends, others, strict=False)):
            raise Refusal(
                f"{program.name}: the values that site {name!r} can have depend on the latents, so that the likelihood "
                "is zero for some of these, and no few weighted rows have such a posterior: give it a distribution "
                "whose bounds are known."
            )


def _scaled_priors(name: str, messages: list[Message]) -> None:
    """Warns of one scale around the whole model, priors included, which then count more or less than once."""
    sites = [m for m in messages if not is_deterministic(m) and not isinstance(m["fn"], Unit)]
    latent = [m["name"] for m in sites if not m["is_observed"]]
    scales = [float(torch.as_tensor(m["scale"]).double().mean()) for m in sites]
    if latent and scales[0] != 1 and set(scales) == {scales[0]}:
        warnings.warn(
            f"{name}: poutine.scale stands around the prior of {words.listed(map(repr, latent))} too, which counts "
            f"{scales[0]:g} times: put it around the observed site alone.",
            UserWarning,
            stacklevel=6,
        )


def _observed(msg: Message, plate: str) -> bool:
    """Whether a site of the row plate observes something, with a density."""
    is_site = msg["is_observed"] and not is_deterministic(msg) and not isinstance(msg["fn"], Unit)
    return bool(is_site) and row_frame(msg, plate) is not None


def _ends(support: Any) -> list[Tensor]:
    """The bounds of a support, as far as it has any."""
    while hasattr(support, "base_constraint"):
        support = support.base_constraint
    ends = [getattr(support, name, None) for name in ("lower_bound", "upper_bound")]
    return [torch.as_tensor(end, dtype=torch.float64).nan_to_num() for end in ends if end is not None]


def equal_sites(some: Structure, program: Program) -> None:
    """Latent sites and their shapes are the same whichever rows are there."""
    every, name = program.structure, program.name
    if some.sites == every.sites:
        return
    pairs = zip(some.sites, every.sites, strict=False)
    changed = next(((a, b) for a, b in pairs if a != b), None)
    if changed is None or changed[0].name != changed[1].name:
        odd = {s.name for s in some.sites} ^ {s.name for s in every.sites}
        raise Refusal(
            f"{name}: the latent sites {sorted(odd)} are there for some rows and not for others: "
            "draw every site whatever the rows are."
        )
    raise Refusal(
        f"{name}: latent site {changed[0].name!r} has shape {changed[1].shape} on all rows but {changed[0].shape} on "
        "some of them: its shape must not depend on the rows (no g.max() + 1); bind the size with functools.partial."
    )


def explained(error: Exception, program: Program, columns: Columns | None = None) -> Refusal:
    """One line that names the model and, for a mixture of types, the constants or columns that may be the cause."""
    name, text = program.name, one_line(error)
    if text.startswith(name):
        return Refusal(text)
    if "dtype" in text or ("Float" in text and "Double" in text):
        if constants := float32_constants(program.model):
            return Refusal(
                f"{name} mixes float64 rows with the float32 constant {', '.join(constants)}: write it as .double()."
            )
        whole = [key for key, column in (columns or {}).items() if not column.is_floating_point()]
        give = f", give columns of integers that are multiplied, of {whole}, as floats" if whole else ""
        return Refusal(
            f"{name} mixes float64 with another type ({text}): models run in float64; write constants as .double()"
            f"{give} and leave out .float()."
        )
    if "inside plate(" in text:
        return Refusal(
            f"{name}: {text}: give one value per row; where rows are to be left out, mask them (poutine.mask) instead "
            "of selecting the others."
        )
    if isinstance(error, Refusal):
        return Refusal(f"{name}: {text}")
    return Refusal(f"{name} failed on its own columns: {type(error).__name__}: {text}")


def _refuse(name: str, msg: Message, plate: str, rows: int) -> None:
    """Refuses a site that bayesdd cannot distil."""
    site, fn = msg["name"], msg["fn"]
    if isinstance(fn, _Subsample):
        subsampled = (fn.subsample_size or fn.size) != fn.size
        if site == plate and (fn.size != rows or subsampled):
            what = f"subsample_size {fn.subsample_size}" if subsampled else f"size {fn.size}"
            raise Refusal(
                f"{name}: plate {plate!r} has {what}, but the columns have {rows} rows: write pyro.plate({plate!r}, "
                "len(column)), without subsampling or selecting rows; bayesdd reads the rows in blocks itself."
            )
    elif is_deterministic(msg):
        if msg["is_observed"] and not msg["infer"].get("_deterministic"):
            raise Refusal(
                f"{name}: site {site!r} observes a Delta, which has no density: observe it with a noise distribution."
            )
    elif msg["is_observed"]:
        _refuse_observed(name, msg, plate, rows)
    elif row_frame(msg, plate) is not None:
        raise Refusal(
            f"{name}: latent site {site!r} stands inside the row plate {plate!r}, one value a row: bayesdd distils "
            "global latents. Marginalise it, or give it a group plate of its own."
        )
    elif fn.support.is_discrete:
        raise Refusal(
            f"{name}: latent site {site!r} is discrete ({type(base(fn)).__name__}): sum it out, for example with "
            "dist.MixtureSameFamily."
        )


def _refuse_observed(name: str, msg: Message, plate: str, rows: int) -> None:
    site, fn = msg["name"], msg["fn"]
    frame = row_frame(msg, plate)
    if frame is None:
        if isinstance(fn, Unit):
            return  # a factor on the latents belongs to the prior; that it ignores the rows is checked later
        others = [f.name for f in msg["cond_indep_stack"] if f.size == rows]
        where = f"in plate {others[0]!r}, a second row plate beside {plate!r}" if others else f"outside plate {plate!r}"
        raise Refusal(
            f"{name}: site {site!r} is observed {where}: put it inside `with pyro.plate({plate!r}, len(column)):`, "
            "or name your own plate with Task(..., plate=...); what is no row, such as an earlier estimate, belongs to "
            f"the prior: pyro.factor({site!r}, density.log_prob(value))."
        )
    if not frame.vectorized:
        raise Refusal(
            f"{name}: site {site!r} runs through plate {plate!r} row by row: write `with pyro.plate(...)`, "
            "not `for ... in`."
        )
    batch, value = fn.batch_shape, msg["value"]
    came = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
    axes = {f.dim for f in msg["cond_indep_stack"]}
    stray = [size for dim, size in zip(range(-len(batch), 0), batch, strict=True) if dim not in axes and size != 1]
    misplaced = bool(stray) or len(batch) < -frame.dim or batch[frame.dim] != rows
    if misplaced or (not isinstance(fn, Unit) and came != tuple(batch + fn.event_shape)):
        raise Refusal(
            f"{name}: site {site!r} must give one value per row, but it observes shape {came} with a distribution of "
            f"batch shape {tuple(batch)} and event shape {tuple(fn.event_shape)} for {rows} rows: make the shapes "
            "equal (drop an axis with [:, 0]), and declare axes beyond the rows with .to_event(1)."
        )


def _support(msg: Message, program: Program, number: Callable[[int], int]) -> None:
    """Observed values lie in the support of their site, where they are not masked."""
    fn, value, mask = msg["fn"], msg["value"], msg["mask"]
    frame = row_frame(msg, program.plate)
    if frame is None or not _observed(msg, program.plate) or mask is False:
        return
    if isinstance(scale := msg["scale"], Tensor) and bool((scale < 0).any()):
        less = (scale < 0).expand(fn.batch_shape).movedim(frame.dim, 0)
        row = int(less.reshape(len(less), -1).any(1).nonzero()[0])
        raise Refusal(
            f"{program.name}: site {msg['name']!r} is scaled by {float(scale.min()):g} at least, first below zero in "
            f"row {number(row)}: no row counts less than not at all; recode the column."
        )
    bad = _outside(fn, value)
    if isinstance(mask, Tensor):
        bad = bad & mask
    if bool(bad.any()) and value.is_floating_point() and bool(value.isnan().any()):
        bad = bad & ~_accounted(fn, value)
    if not bool(bad.any()):
        return
    rows_first = bad.movedim(frame.dim, 0)
    row = int(rows_first.reshape(len(rows_first), -1).any(1).nonzero()[0])
    entry = value.movedim(frame.dim - len(fn.event_shape), 0)[row]
    where = f"{program.name}: site {msg['name']!r} observes"
    if entry.is_floating_point() and bool(entry.isnan().any()):
        raise Refusal(
            f"{where} NaN in row {number(row)}: mask missing values (obs=y.nan_to_num() under poutine.mask), "
            "or drop the row."
        )
    shown = entry.item() if entry.numel() == 1 else entry.tolist()
    raise Refusal(
        f"{where} {shown} in row {number(row)}, outside the support {' '.join(str(fn.support).split())} of "
        f"{type(base(fn)).__name__}: recode the column."
    )


def _outside(fn: Any, value: Tensor) -> Tensor:
    """Where values that are not masked lie outside the support, in the distribution's batch shape."""
    if isinstance(fn, MaskedDistribution):
        return _outside(fn.base_dist, value) & torch.as_tensor(fn._mask)
    if isinstance(fn, Independent):
        bad = _outside(fn.base_dist, value)
        events = fn.reinterpreted_batch_ndims
    else:
        bad = ~fn.support.check(value)
        events = bad.dim() - len(fn.batch_shape)
    return bad.reshape(*bad.shape[: bad.dim() - events], -1).any(-1)


def _accounted(fn: Any, value: Tensor) -> Tensor:
    """Where the distribution has a finite density for missing values (Pyro's NanMasked ones), in its batch shape."""
    missing = value.isnan()
    missing = missing.reshape(*missing.shape[: missing.dim() - len(fn.event_shape)], -1).any(-1)
    with running(), torch.no_grad():
        return missing & torch.isfinite(fn.log_prob(value))


def float32_constants(model: Model) -> list[str]:
    """Names of float32 tensors and networks that a model reaches by closure, globals, defaults or ``partial``."""
    reach: dict[str, Any] = {}
    while isinstance(model, functools.partial):
        reach.update({f"argument {i}": value for i, value in enumerate(model.args)}, **model.keywords)
        model = model.func
    if code := getattr(model, "__code__", None):
        cells = getattr(model, "__closure__", None) or ()
        reach.update({name: cell.cell_contents for name, cell in zip(code.co_freevars, cells, strict=False)})
        space = getattr(model, "__globals__", {})
        reach.update({name: space[name] for name in code.co_names if name in space})
        for parameter in introspection.signature(model).parameters.values():
            reach.setdefault(parameter.name, parameter.default)
    elif isinstance(model, torch.nn.Module):
        reach["self"] = model
    return [repr(name) for name, value in reach.items() if any(t.dtype == torch.float32 for t in _tensors(value))]


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, torch.nn.Module):
        yield from (*value.parameters(), *value.buffers())
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _tensors(item)
    elif isinstance(value, dict):
        yield from _tensors(list(value.values()))
