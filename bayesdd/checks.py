"""The model contract, checked when a Task is made: Pyro is silent about all of it.

Every message names the model, the site or column, what came and what to write instead.
"""

from __future__ import annotations

import inspect
import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from pyro.distributions import Unit
from pyro.poutine.subsample_messenger import _Subsample
from torch import Tensor

from bayesdd import pyro_model
from bayesdd.engine import Engine
from bayesdd.kinds import _RELAXED
from bayesdd.pyro_model import Columns, Message, Structure

if TYPE_CHECKING:
    from bayesdd.task import Task

ROWS_COMPARED = 6
STARTS = 8


def arguments(model: Callable[..., Any], columns: Columns, name: str) -> None:
    """Columns and model arguments belong together by name."""
    try:
        parameters = inspect.signature(model).parameters
    except (TypeError, ValueError):
        return
    bound = set(getattr(model, "keywords", {}))
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    unknown = [column for column in columns if column not in parameters or column in bound]
    if unknown and not takes_any:
        wanted = [parameter for parameter in parameters if parameter not in bound]
        raise ValueError(
            f"{name} takes the columns {wanted}, but the data also have {unknown}: drop them, or name them as arguments."
        )
    missing = [
        p.name
        for p in parameters.values()
        if p.default is p.empty and p.name not in columns and p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
    ]
    if missing:
        raise ValueError(
            f"{name} needs the columns {missing}, but the data have {sorted(columns)}: add them, or bind constants with functools.partial."
        )


def structure(model: Callable[..., Any], columns: Columns, plate: str, name: str) -> tuple[Structure, Columns]:
    """Runs the model once on all rows and reads its sites; binary and count observations become float64."""
    found, messages = run(model, columns, plate, name)
    if not found.observed:
        raise ValueError(
            f"{name} observes nothing in plate {plate!r}: give pyro.sample(..., obs=column) inside `with pyro.plate({plate!r}, len(column)):`."
        )
    if not found.sites:
        raise ValueError(f"{name} has no latent site: there is no posterior to distil.")
    relaxed = {o.column for o in found.observed if o.distribution in _RELAXED and o.column}
    columns = {key: column.double() if key in relaxed else column for key, column in columns.items()}
    for message in messages:
        _support(message, plate, name, columns)
    return found, columns


def run(model: Callable[..., Any], columns: Columns, plate: str, name: str) -> tuple[Structure, list[Message]]:
    """``pyro_model.inspect`` with whatever the model raises put into one line that names it."""
    try:
        return pyro_model.inspect(model, columns, plate, 0, functools.partial(refuse, name))
    except ValueError as error:
        text = str(error).strip().split("\n")[0]
        raise ValueError(text if text.startswith(name) else f"{name}: {text}") from error
    except Exception as error:
        raise _explained(error, model, name) from error


def _explained(error: Exception, model: Callable[..., Any], name: str) -> Exception:
    text = str(error).strip().split("\n")[0]
    if "dtype" in text or "Float" in text and "Double" in text:
        constants = float32_constants(model)
        if constants:
            return ValueError(
                f"{name} mixes float64 rows with the float32 constant {', '.join(constants)}: write it as .double()."
            )
        return ValueError(
            f"{name} mixes float64 with another dtype ({text}): models run in float64; write constants as .double() and leave out .float()."
        )
    return ValueError(f"{name} failed on its own columns: {type(error).__name__}: {text}")


def float32_constants(model: Callable[..., Any]) -> list[str]:
    """Names of float32 tensors that a model reaches by closure, module globals, defaults or partial keywords."""
    reach: dict[str, Any] = {}
    while isinstance(model, functools.partial):
        reach.update(model.keywords)
        model = model.func
    code = getattr(model, "__code__", None)
    if code is not None:
        cells = getattr(model, "__closure__", None) or ()
        reach.update({name: cell.cell_contents for name, cell in zip(code.co_freevars, cells, strict=False)})
        space = getattr(model, "__globals__", {})
        reach.update({name: space[name] for name in code.co_names if name in space})
        defaults = inspect.signature(model).parameters.values()
        reach.update({p.name: p.default for p in defaults if isinstance(p.default, Tensor)})
    return [repr(name) for name, value in reach.items() if isinstance(value, Tensor) and value.dtype == torch.float32]


def refuse(name: str, msg: Message, plate: str, rows: int) -> None:
    """Refuses a site that bayesdd cannot distil."""
    site, fn = msg["name"], msg["fn"]
    frames = msg["cond_indep_stack"]
    if isinstance(fn, _Subsample):
        if site == plate and (fn.size != rows or (fn.subsample_size or fn.size) != fn.size):
            what = f"size {fn.size}" if fn.size != rows else f"subsample_size {fn.subsample_size}"
            raise ValueError(
                f"{name}: plate {plate!r} has {what}, but the columns have {rows} rows: write pyro.plate({plate!r}, len(column)), without subsampling; bayesdd reads the rows in blocks itself."
            )
        return
    if pyro_model.is_deterministic(msg):
        return
    frame = pyro_model.row_frame(msg, plate)
    if not msg["is_observed"]:
        if frame is not None:
            raise ValueError(
                f"{name}: latent site {site!r} stands inside the row plate {plate!r}, one value a row: bayesdd distils global latents. Marginalise it, or give it a group plate of its own."
            )
        if fn.support.is_discrete:
            raise ValueError(
                f"{name}: latent site {site!r} is discrete ({type(pyro_model.base(fn)).__name__}): sum it out, for example with dist.MixtureSameFamily."
            )
        return
    if frame is None:
        if isinstance(fn, Unit):
            return  # a factor on the latents belongs to the prior; that it ignores the rows is checked below
        others = [f.name for f in frames if f.size == rows]
        where = f"in plate {others[0]!r}, a second row plate beside {plate!r}" if others else f"outside plate {plate!r}"
        raise ValueError(
            f"{name}: site {site!r} is observed {where}: put it inside `with pyro.plate({plate!r}, len(column)):`, or name your own plate with Task(..., plate=...)."
        )
    if not frame.vectorized:
        raise ValueError(
            f"{name}: site {site!r} runs through plate {plate!r} row by row: write `with pyro.plate(...)`, not `for ... in`."
        )
    batch, value = fn.batch_shape, msg["value"]
    axes = {f.dim for f in frames}
    stray = [size for dim, size in zip(range(-len(batch), 0), batch, strict=True) if dim not in axes and size != 1]
    wanted = batch + fn.event_shape
    if (
        stray
        or len(batch) < -frame.dim
        or batch[frame.dim] != rows
        or (not isinstance(fn, Unit) and torch.Size(value.shape) != wanted)
    ):
        came = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise ValueError(
            f"{name}: site {site!r} must give one value per row, but it observes shape {came} with a distribution of batch shape "
            f"{tuple(batch)} and event shape {tuple(fn.event_shape)} for {rows} rows: make the shapes equal (drop an axis with [:, 0]), "
            "and declare axes beyond the rows with .to_event(1)."
        )


def _support(msg: Message, plate: str, name: str, columns: Columns) -> None:
    """Observed values lie in the support of their site, where they are not masked."""
    fn, value = msg["fn"], msg["value"]
    if not msg["is_observed"] or pyro_model.is_deterministic(msg) or isinstance(fn, Unit):
        return
    bad = ~fn.support.check(value)
    while bad.dim() > len(fn.batch_shape):
        bad = bad.any(-1)
    mask = msg["mask"]
    if mask is False or not bool(bad.any()):
        return
    if isinstance(mask, Tensor):
        bad = bad & mask
    frame = pyro_model.row_frame(msg, plate)
    if frame is not None and bool(bad.any()):
        rows_first = bad.movedim(frame.dim, 0)
        row = int(rows_first.reshape(len(rows_first), -1).any(1).nonzero()[0])
        entry = value.movedim(frame.dim, 0)[row] if not fn.event_shape else value[row]
        shown = entry.item() if entry.numel() == 1 else entry.tolist()
        if isinstance(shown, float) and shown != shown:
            raise ValueError(
                f"{name}: site {msg['name']!r} observes NaN in row {row}: mask missing values (obs=y.nan_to_num() under poutine.mask), or drop the row."
            )
        raise ValueError(
            f"{name}: site {msg['name']!r} observes {shown} in row {row}, outside the support {fn.support} of {type(pyro_model.base(fn)).__name__}: recode the column."
        )


def contract(task: Task, choose: Callable[..., tuple[str, str]]) -> str:
    """Row independence, a prior that ignores the rows, finite values and gradients; returns the batching backend."""
    name, columns = task.name, task.data
    picks = sorted({round(i * (task.size - 1) / (ROWS_COMPARED - 1)) for i in range(ROWS_COMPARED)} | _extreme(columns))
    few = {key: column[picks] for key, column in columns.items()}
    singles = [{key: column[i : i + 1] for key, column in few.items()} for i in range(len(picks))]
    for rows in [few, *singles]:
        found = run(task.model, rows, task.plate, name)[0]
        if found.sites != task.structure.sites:
            changed = [
                (a.name, a.shape, b.shape) for a, b in zip(task.structure.sites, found.sites, strict=False) if a != b
            ]
            site, all_rows, some = changed[0] if changed else ("?", "", "")
            raise ValueError(
                f"{name}: latent site {site!r} has shape {all_rows} on all rows but {some} on some of them: its shape must not depend on the rows (no g.max() + 1); bind the size with functools.partial."
            )
    draws = finite_starts(task, 2)
    both = _both(task)
    loop = Engine(both, "loop")
    together = loop(draws, few)
    apart = torch.stack([loop(draws, row) for row in singles])
    priors = len(task.structure.sites) + 1
    if together.dtype != torch.float64:
        raise ValueError(
            f"{name}: the log density comes out as {together.dtype}: a float32 constant or .float() inside the model; write it in float64 (.double())."
        )
    if not torch.allclose(
        apart[:, :, :priors], together[:, :priors].expand(len(picks), -1, -1), rtol=1e-7, atol=1e-9, equal_nan=True
    ):
        wrong = (apart[:, :, :priors] - together[:, :priors]).abs().amax((0, 1)).nan_to_num(0.0).argmax()
        site = [*task.sites, "pyro.factor"][int(wrong)]
        raise ValueError(
            f"{name}: the prior of site {site!r} depends on which rows are there: compute such constants (y.std(), x.mean(0)) beforehand and bind them with functools.partial."
        )
    if not torch.allclose(
        apart[:, :, priors:].squeeze(2).T, together[:, priors:], rtol=1e-7, atol=1e-7, equal_nan=True
    ):
        raise ValueError(
            f"{name}: the log-likelihood of a row changes with the rows beside it (a statistic across rows, such as x.mean(0), or an (N, 1) against an (N,)): make each row's density depend on that row alone."
        )
    backend, _ = choose(both, draws, few)
    _gradients(task, draws, few, backend)
    return backend


def _extreme(columns: Columns) -> set[int]:
    """Rows at which integer columns are smallest: they show shapes that follow the largest group index."""
    return {
        int(column.reshape(len(column), -1)[:, 0].argmin())
        for column in columns.values()
        if not column.is_floating_point()
    }


def _both(task: Task) -> Callable[[Tensor, Columns], Tensor]:
    def single(flat: Tensor, rows: Columns) -> Tensor:
        return torch.cat(pyro_model.evaluate(task.model, task.structure, task.plate, flat, rows))

    return single


def finite_starts(task: Task, count: int, seed: int = 0) -> Tensor:
    """Unconstrained points at which the full log-likelihood is finite, shape ``(count, P)``.

    Raises:
        ValueError: None of the candidates is finite; names the first row that is not, and its NaN columns.
    """
    generator = torch.Generator().manual_seed(seed)
    flat = torch.rand(STARTS, task.dim, generator=generator, dtype=torch.float64) * 4 - 2
    candidates = torch.cat(
        [flat / 4, task.prior_draws(STARTS, seed), flat, torch.zeros(1, task.dim, dtype=torch.float64)]
    )
    engine = Engine(_both(task), "loop")
    priors = len(task.structure.sites) + 1
    good, bad_rows = [], None
    for candidate in candidates:
        try:
            with torch.no_grad():
                value = engine(candidate[None], task.data)[0]
        except Exception as error:
            raise _explained(error, task.model, task.name) from error
        if bool(torch.isfinite(value).all()):
            good.append(candidate)
            if len(good) == count:
                return torch.stack(good)
        bad = ~torch.isfinite(value[priors:])
        bad_rows = bad if bad_rows is None else bad_rows & bad
    if good:
        return torch.stack([good[i % len(good)] for i in range(count)])
    if bad_rows is not None and bool(bad_rows.any()):
        row = int(bad_rows.nonzero()[0])
        missing = [
            key
            for key, column in task.data.items()
            if column.is_floating_point() and bool(torch.isnan(column[row]).any())
        ]
        if missing:
            raise ValueError(
                f"{task.name}: the log-likelihood of row {row} is NaN because column {missing[0]!r} is missing there: fill it with nan_to_num under a mask, or drop such rows."
            )
        raise ValueError(
            f"{task.name}: the log-likelihood of row {row} is not finite at any of {len(candidates)} starting points: check that row, or the model's scale."
        )
    raise ValueError(
        f"{task.name}: log prior or log-likelihood is not finite at any of {len(candidates)} starting points: check the prior's scale."
    )


def _gradients(task: Task, draws: Tensor, rows: Columns, backend: str) -> None:
    draws = draws.clone().requires_grad_(True)
    value = Engine(_both(task), backend)(draws, rows)
    (gradient,) = torch.autograd.grad(value.sum(), draws)
    if not bool(torch.isfinite(gradient).all()):
        site = next(
            s.name for s in task.structure.sites if not bool(torch.isfinite(gradient[:, s.start : s.stop]).all())
        )
        raise ValueError(
            f"{task.name}: the gradient for site {site!r} is not finite: NaN under a mask still has a NaN gradient; fill it with nan_to_num before it is used."
        )


def learner(tasks: list[Task], student: Task | None) -> Task:
    """The student: given, or the only target task."""
    if not tasks:
        raise ValueError("the target is an empty list: give a Task, or several.")
    if student is None and len(tasks) > 1:
        raise ValueError(
            f"a target of {len(tasks)} tasks needs student=: the Task that people will fit to the synthetic rows."
        )
    return tasks[0] if student is None else student


def sizes(tasks: list[Task], student: Task | None, size: int | None, tolerance: float | None, init: Any) -> Task:
    """Checks the arguments of ``distill`` and returns the student."""
    found = learner(tasks, student)
    rows = sum(task.size for task in tasks)
    if size is None and tolerance is None:
        raise ValueError("distill needs size= (number of synthetic rows) or tolerance= (nats), got neither.")
    if size is not None and (isinstance(size, bool) or not isinstance(size, int) or not 1 <= size <= rows):
        raise ValueError(f"distill needs a size from 1 to the {rows} real rows, got {size!r}.")
    if tolerance is not None and not 0 < tolerance < float("inf"):
        raise ValueError(f"distill needs a positive tolerance in nats, got {tolerance!r}.")
    if init is not None:
        init.check(found)
    return found
