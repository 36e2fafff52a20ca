"""A Pyro model as plain functions of tensors: the only file, with ``inspection``, that knows Pyro's handlers.

A Messenger of our own is the outermost handler around the user's model. It feeds every latent site from one flat
unconstrained vector (the transform is built inside the run, so that ``Uniform(0, b)`` with a latent ``b`` works),
collects the log prior site by site with its Jacobian, and the log-likelihood row by row with the site's scale and mask.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import pyro
import torch
from pyro.distributions import Delta, MaskedDistribution
from pyro.distributions.util import scale_and_mask
from pyro.poutine.messenger import Messenger
from pyro.poutine.subsample_messenger import _Subsample
from torch import Tensor
from torch.distributions import biject_to

from bayesdd.data.columns import Columns
from bayesdd.numerics.exclusive import LOCK
from bayesdd.numerics.refusal import Refusal
from bayesdd.task.vmap_safe import vmap_safe

Message = dict[str, Any]
Model = Callable[..., Any]
_WRAPPERS = {"Independent", "ExpandedDistribution", "MaskedDistribution"}


@dataclass(frozen=True)
class Site:
    """A latent site: its constrained and unconstrained shapes and its place in the flat vector."""

    name: str
    shape: tuple[int, ...]
    free_shape: tuple[int, ...]
    start: int

    @property
    def stop(self) -> int:
        """End of the site's slice of the flat unconstrained vector."""
        return self.start + torch.Size(self.free_shape).numel()


@dataclass(frozen=True)
class Observation:
    """An observed site of the row plate: its support and the data column it observes (None: computed inside).

    ``elements``: the numbers of the column's elements that it observes; none: all of them. ``sources``: the columns
    that its value is computed from where it is none of them, as in ``obs=y.log()``.
    """

    name: str
    support: Any
    column: str | None
    distribution: str
    elements: tuple[int, ...] = ()
    sources: tuple[str, ...] = ()

    @property
    def discrete(self) -> bool:
        """Whether the support consists of separate values."""
        return bool(getattr(self.support, "is_discrete", False))


@dataclass(frozen=True)
class Structure:
    """What one run of a model shows: latent sites in order, observed sites, global deterministic sites."""

    sites: tuple[Site, ...]
    observed: tuple[Observation, ...]
    deterministic: tuple[str, ...]

    @property
    def dim(self) -> int:
        """Length P of the flat unconstrained vector."""
        return self.sites[-1].stop if self.sites else 0


@dataclass(frozen=True)
class Program:
    """A model whose structure is known: what is needed to run it, without rows.

    Attributes:
        model: The Pyro model, called with one keyword a column.
        structure: Its sites.
        plate: Name of the row plate.
        name: ``module:function`` of the model, for messages.
    """

    model: Model
    structure: Structure
    plate: str
    name: str


@contextmanager
def float64() -> Iterator[None]:
    """Float64 as the default dtype; restored. Other threads wait."""
    with LOCK:
        before = torch.get_default_dtype()
        torch.set_default_dtype(torch.float64)
        try:
            yield
        finally:
            torch.set_default_dtype(before)


@contextmanager
def running(device: torch.device | None = None) -> Iterator[None]:
    """While a model runs: float64 default, tensors made on the device (default: CPU), no validation; all restored."""
    where = device or torch.device("cpu")
    # The mode costs time at every torch call: only where the default is another device.
    elsewhere = where if torch.get_default_device().type != where.type else nullcontext()
    with float64(), elsewhere, pyro.validation_enabled(False), vmap_safe():
        yield


def is_deterministic(msg: Message) -> bool:
    """Whether a message is ``pyro.deterministic`` or a Delta written by hand."""
    return bool(msg["infer"] and msg["infer"].get("_deterministic")) or isinstance(base(msg["fn"]), Delta)


def base(fn: Any) -> Any:
    """The distribution under ``to_event``, ``expand`` and ``mask``."""
    while hasattr(fn, "base_dist") and type(fn).__name__ in _WRAPPERS:
        fn = fn.base_dist
    return fn


def row_frame(msg: Message, plate: str) -> Any | None:
    """The row plate's frame at a site, or None outside it."""
    return next((frame for frame in msg["cond_indep_stack"] if frame.name == plate), None)


class Recorder(Messenger):
    """Records every sample site of one run; latent values become float64, whatever their distribution was made of."""

    def __init__(self) -> None:
        super().__init__()
        self.messages: list[Message] = []

    def _pyro_post_sample(self, msg: Message) -> None:
        if isinstance(msg["fn"], _Subsample):
            return
        if not msg["is_observed"] and msg["value"].is_floating_point():
            msg["value"] = msg["value"].double()
        self.messages.append(dict(msg))


class Feeder(Messenger):
    """Feeds latent sites from a flat vector; collects log prior by site and log-likelihood by row."""

    def __init__(self, program: Program, flat: Tensor) -> None:
        super().__init__()
        self.sites = {site.name: site for site in program.structure.sites}
        self.flat, self.plate = flat, program.plate
        self.values: dict[str, Tensor] = {}
        self.log_prior: dict[str, Tensor] = {}
        self.extra_prior: list[Tensor] = []
        self.log_likelihood: list[Tensor] = []
        self._jacobian: dict[str, Tensor] = {}

    def _pyro_sample(self, msg: Message) -> None:
        if msg["is_observed"] or isinstance(msg["fn"], _Subsample) or is_deterministic(msg):
            return
        site = self.sites.get(msg["name"])
        if site is None:
            raise _not_always(msg["name"])
        free = self._free(site).reshape(site.free_shape)
        transform = biject_to(msg["fn"].support)
        msg["value"], msg["done"] = transform(free), True
        self._jacobian[site.name] = transform.log_abs_det_jacobian(free, msg["value"]).sum()

    def _free(self, site: Site) -> Tensor:
        return self.flat[site.start : site.stop]

    def _pyro_post_sample(self, msg: Message) -> None:
        name, fn = msg["name"], msg["fn"]
        if isinstance(fn, _Subsample):
            return
        if is_deterministic(msg):
            self.values[name] = torch.as_tensor(msg["value"])
        elif name in self.sites:
            self.values[name] = msg["value"]
            self.log_prior[name] = site_log_prob(msg).sum() + self._jacobian[name]
        elif msg["is_observed"]:
            frame, log_prob = row_frame(msg, self.plate), site_log_prob(msg)
            if frame is None:
                self.extra_prior.append(log_prob.sum())
            else:
                self.log_likelihood.append(_by_row(log_prob, frame.dim))


def _not_always(name: str) -> Refusal:
    return Refusal(
        f"latent site {name!r} is there in some runs of the model and not in others: "
        "draw every site in every run and choose between them with torch.where"
    )


def site_log_prob(msg: Message) -> Tensor:
    """Log density of a site before any sum, with its scale and mask, in its full batch shape."""
    fn = msg["fn"]
    log_prob = fn.log_prob(msg["value"], *msg["args"], **msg["kwargs"])
    log_prob = log_prob.expand(torch.broadcast_shapes(log_prob.shape, fn.batch_shape))
    scaled: Tensor = scale_and_mask(log_prob, msg["scale"], msg["mask"])
    if scaled.dtype != torch.float64:
        raise Refusal(
            f"the log density of site {msg['name']!r} comes out as {scaled.dtype}: there is a float32 constant or a "
            ".float() inside the model; write it in float64 (.double())."
        )
    return scaled


def _by_row(log_prob: Tensor, row_dim: int) -> Tensor:
    """Sums every axis but the rows'."""
    rows_first = log_prob.movedim(row_dim, 0)
    # A sum over no axis would still cost a third of a sweep's time.
    return rows_first if rows_first.dim() == 1 else rows_first.reshape(len(rows_first), -1).sum(1)


def evaluate(program: Program, flat: Tensor, columns: Columns) -> tuple[Tensor, Tensor]:
    """Log prior by site ``(sites + 1,)`` (last: ``pyro.factor`` outside the plate), and log-likelihood by row."""
    sites = program.structure.sites
    with Feeder(program, flat) as feeder:
        program.model(**columns)
    if absent := [site.name for site in sites if site.name not in feeder.log_prior]:
        raise _not_always(absent[0])
    by_site = [feeder.log_prior[site.name] for site in sites]
    extra = torch.stack(feeder.extra_prior).sum() if feeder.extra_prior else flat.new_zeros(())
    first, *others = feeder.log_likelihood or [flat.new_zeros(0)]
    rows = torch.stack([first, *others]).sum(0) if others else first
    return torch.stack([*by_site, extra]), rows


def joined(program: Program, flat: Tensor, columns: Columns) -> Tensor:
    """``evaluate`` as one vector: log prior by site, then log-likelihood by row, ``(sites + 1 + rows,)``."""
    return torch.cat(evaluate(program, flat, columns))


def values(program: Program, flat: Tensor, columns: Columns) -> Columns:
    """Constrained latents and global deterministic sites at one flat draw."""
    with Feeder(program, flat) as feeder:
        program.model(**columns)
    names = [*(site.name for site in program.structure.sites), *program.structure.deterministic]
    return {name: feeder.values[name] for name in names}


def simulate(program: Program, values: Columns, columns: Columns) -> Columns:
    """Draws of the observed sites whose columns were left out, given constrained latents; inside ``running()``."""
    with Recorder() as recorder, pyro.poutine.condition(data=values):
        program.model(**columns)
    wanted = {observation.name for observation in program.structure.observed}
    found = [msg for msg in recorder.messages if msg["name"] in wanted and not msg["is_observed"]]
    return {msg["name"]: _rows_first(msg, msg["value"], program.plate) for msg in found}


def observations(program: Program, columns: Columns) -> Columns:
    """What the observed sites of the row plate see, NaN where they are masked: site -> ``(rows, ...)``."""
    with running(), torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        with Recorder() as recorder:
            program.model(**columns)
    wanted = {observation.name for observation in program.structure.observed}
    found = [msg for msg in recorder.messages if msg["name"] in wanted and msg["is_observed"]]
    return {msg["name"]: _rows_first(msg, _seen(msg), program.plate) for msg in found}


def _rows_first(msg: Message, value: Tensor, plate: str) -> Tensor:
    """A site's value with the rows' axis, which a plate beside it may have put elsewhere, in front."""
    frame = row_frame(msg, plate)
    return value if frame is None else value.movedim(frame.dim - len(msg["fn"].event_shape), 0)


def _seen(msg: Message) -> Tensor:
    """An observed site's value, NaN in the entries that a mask leaves out."""
    value: Tensor = msg["value"]
    fn, masks = msg["fn"], [(msg["fn"], msg["mask"])]
    while hasattr(fn, "base_dist"):
        if isinstance(fn, MaskedDistribution):
            masks.append((fn, fn._mask))
        fn = fn.base_dist
    for level, mask in masks:
        if mask is not None and not (isinstance(mask, bool) and mask):
            here = torch.as_tensor(mask).expand(level.batch_shape)
            here = here.reshape(*here.shape, *[1] * (value.dim() - here.dim()))
            value = torch.where(here, value.double(), torch.nan)
    return value


def prior_draws(program: Program, columns: Columns, seeds: Iterable[int]) -> Tensor:
    """Unconstrained draws from the prior, one a seed, shape ``(seeds, P)``."""
    draws = []
    with running(), torch.random.fork_rng(devices=[]), torch.no_grad():
        for seed in seeds:
            torch.default_generator.manual_seed(seed)  # torch.manual_seed takes longer than a small model
            with Recorder() as recorder:
                program.model(**columns)
            drawn = {msg["name"]: msg for msg in recorder.messages}
            if absent := [site.name for site in program.structure.sites if site.name not in drawn]:
                raise _not_always(absent[0])
            found = [drawn[site.name] for site in program.structure.sites]
            draws.append(torch.cat([biject_to(msg["fn"].support).inv(msg["value"]).flatten() for msg in found]))
    return torch.stack(draws)


def unconstrained(program: Program, values: Columns, columns: Columns) -> tuple[Tensor, Tensor]:
    """The flat vector ``(P,)`` of constrained latents, and the log Jacobian of the way back; inside ``running()``."""
    with Recorder() as recorder, pyro.poutine.condition(data=values):
        program.model(**columns)
    drawn = {msg["name"]: msg for msg in recorder.messages}
    flat, log_jacobian = [], torch.zeros(())
    for site in program.structure.sites:
        transform = biject_to(drawn[site.name]["fn"].support)
        free = transform.inv(values[site.name])
        flat.append(free.reshape(-1))
        log_jacobian = log_jacobian + transform.log_abs_det_jacobian(free, values[site.name]).sum()
    return torch.cat(flat), log_jacobian
