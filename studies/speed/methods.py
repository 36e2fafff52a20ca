"""The methods of the speed study: rows in, draws and what they cost out, each run in a process of its own."""

from __future__ import annotations

import importlib
import time
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch

from studies.speed.truth import Array, log_joint, moments, newton

PARTICLES, SWEPT_ROWS = 1000, 512
OWN_DRAWS = 20_000  # for the exact moments of the distilled posterior
SUBSAMPLE, ECS_BLOCKS = 1000, 10
PYRO_SHARE, LONG_SHARE = 5, 5  # how many times fewer iterations than asked for; seconds are scaled up
LONG = 20_000_000  # rows x covariates above which NUTS on all rows runs a fifth of its iterations


class Run(NamedTuple):
    """What a method gave.

    Attributes:
        draws: ``(chains, draws, d)``, or None.
        seconds: Wall seconds, compilation left out.
        compiled: Seconds of compilation, which a first run takes longer.
        passes: Passes over all rows, one draw each: values, and gradients (a Hessian counts d).
        scaled: How many times fewer iterations were run than the seconds are given for.
        extra: Whatever else is known.
    """

    draws: Array | None
    seconds: float
    compiled: float = 0.0
    passes: tuple[float, float] = (0.0, 0.0)
    scaled: int = 1
    extra: dict[str, Any] | None = None


def distilled(x: Array, y: Array, size: int, draws: int, chains: int) -> Run:
    """(a) ``distill`` to ``size`` rows, then ``sample`` of them, twice with different seeds.

    The second run counts; what the first one takes longer (graphs are recorded, libraries load) is its compilation.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # ArviZ 0.23 announces 1.x on import
        for name in ("torch._dynamo", "arviz"):  # imports are in nobody's seconds
            importlib.import_module(name)
    import bayesdd
    from models import logistic_regression

    def once(seed: int) -> tuple[list[float], Any, Any]:
        clock = [time.perf_counter()]
        task = bayesdd.Task(logistic_regression.model, {"x": x, "y": y})
        clock.append(time.perf_counter())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", bayesdd.CertificateWarning)  # the verdict is in the table
            found = bayesdd.distill(task, size, seed=seed, progress=False, device="cpu")
        clock.append(time.perf_counter())
        idata = bayesdd.sample(task, found, draws=draws, chains=chains, seed=seed, device="cpu")
        clock.append(time.perf_counter())
        return clock, found, idata

    first, *_ = once(1)
    clock, found, idata = once(0)
    check, distill, sample = np.diff(clock).tolist()
    exact = moments(found.data["x"].numpy(), found.data["y"].numpy(), OWN_DRAWS, found.weight.numpy())
    certificate = found.certificate
    assert isinstance(certificate, bayesdd.Certificate)  # distill attaches one
    extra = {
        "check": check,
        "distill": distill,
        "sample": sample,
        "ok": certificate.ok,
        "kl_reverse": certificate.kl_reverse,
        "kl_forward": certificate.kl_forward,
        "own": {"mean": exact["mean"], "sd": exact["sd"]},
    }
    seconds = clock[-1] - clock[0]
    passes = (certificate.sweeps, certificate.gradients)
    return Run(np.asarray(idata.posterior["w"]), seconds, max(first[-1] - first[0] - seconds, 0.0), passes, 1, extra)


def numpyro_nuts(x: Array, y: Array, size: int, draws: int, chains: int) -> Run:
    """(b) NumPyro's NUTS on all rows, float32 (its default), one chain: ``draws / 2`` of warm-up, as many kept."""
    jax, numpyro, compiled = _numpyro()
    iterations = draws // 2 // (LONG_SHARE if x.size > LONG else 1)
    kernel = numpyro.infer.NUTS(_numpyro_model(numpyro))
    run = numpyro.infer.MCMC(kernel, num_warmup=iterations, num_samples=iterations, progress_bar=False)
    begin = time.perf_counter()
    run.warmup(jax.random.PRNGKey(0), x, y, collect_warmup=True, extra_fields=("num_steps",))
    steps = int(np.asarray(run.get_extra_fields()["num_steps"]).sum())
    run.run(run.post_warmup_state.rng_key, x, y, extra_fields=("num_steps",))
    values = np.asarray(run.get_samples(group_by_chain=True)["w"], dtype=float)
    wall = time.perf_counter() - begin
    steps += int(np.asarray(run.get_extra_fields()["num_steps"]).sum())
    scaled = draws // 2 // iterations
    return Run(values, scaled * (wall - compiled.seconds), compiled.seconds, (0.0, scaled * steps), scaled)


def pyro_nuts(x: Array, y: Array, size: int, draws: int, chains: int) -> Run:
    """(c) Pyro's NUTS on all rows, one chain, a fifth of the iterations of (b)."""
    from pyro.infer import MCMC, NUTS

    from models import logistic_regression

    iterations = draws // 2 // PYRO_SHARE
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        begin = time.perf_counter()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            kernel = NUTS(logistic_regression.model)
            run = MCMC(kernel, num_samples=iterations, warmup_steps=iterations, disable_progbar=True)
            run.run(torch.as_tensor(x), torch.as_tensor(y))
        seconds = time.perf_counter() - begin
    finally:
        torch.set_default_dtype(before)
    values = run.get_samples(group_by_chain=True)["w"].numpy()
    return Run(values, PYRO_SHARE * seconds, scaled=PYRO_SHARE)


def numpyro_hmcecs(x: Array, y: Array, size: int, draws: int, chains: int) -> Run:
    """(d) NumPyro's energy-conserving subsampling around the mode: 1,000 rows a step, iterations as in (b)."""
    jax, numpyro, compiled = _numpyro()
    iterations = draws // 2
    begin = time.perf_counter()
    mode = newton(torch.as_tensor(x), torch.as_tensor(y))[0].numpy()
    reference = {"w": jax.numpy.asarray(mode)}
    inner = numpyro.infer.NUTS(
        _numpyro_model(numpyro, SUBSAMPLE), init_strategy=numpyro.infer.init_to_value(values=reference)
    )
    proxy = numpyro.infer.HMCECS.taylor_proxy(reference)
    kernel = numpyro.infer.HMCECS(inner, num_blocks=ECS_BLOCKS, proxy=proxy)
    run = numpyro.infer.MCMC(kernel, num_warmup=iterations, num_samples=iterations, progress_bar=False)
    run.run(jax.random.PRNGKey(0), x, y)
    values = np.asarray(run.get_samples(group_by_chain=True)["w"], dtype=float)
    return Run(values, time.perf_counter() - begin - compiled.seconds, compiled.seconds)


def laplace(x: Array, y: Array, size: int, draws: int, chains: int) -> Run:
    """(e) The normal at the mode of all rows, written in torch: not corrected."""
    begin = time.perf_counter()
    mode, covariance, steps = newton(torch.as_tensor(x), torch.as_tensor(y))
    noise = torch.randn(chains, draws, len(mode), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    values = mode + noise @ torch.linalg.cholesky(covariance).T
    return Run(values.numpy(), time.perf_counter() - begin, 0.0, (0.0, float(steps * (1 + len(mode)))))


def weighted_laplace(x: Array, y: Array, size: int, draws: int, chains: int) -> Run:
    """(g) The draws of (e), weighted by one float64 sweep over all rows and resampled; effective draws by weights."""
    begin = time.perf_counter()
    xs, ys = torch.as_tensor(x), torch.as_tensor(y)
    mode, covariance, steps = newton(xs, ys)
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(chains * draws, len(mode), generator=generator, dtype=torch.float64)
    values = mode + noise @ torch.linalg.cholesky(covariance).T
    weight = torch.softmax(log_joint(xs, ys, torch.ones_like(ys), values) + 0.5 * (noise**2).sum(1), 0)
    picked = torch.multinomial(weight, chains * draws, replacement=True, generator=generator)
    kept = values[picked].reshape(chains, draws, -1).numpy()
    passes = (float(chains * draws), float(steps * (1 + len(mode))))
    return Run(kept, time.perf_counter() - begin, 0.0, passes, 1, {"ess": float(1 / (weight**2).sum())})


def bare_sweep(x: Array, y: Array, size: int, draws: int, chains: int) -> Run:
    """(f) One sweep of 1,000 particles in float32, written directly in torch: no draws, the yardstick of the others."""
    xs, ys = torch.as_tensor(x).float(), torch.as_tensor(y).float()
    noise = torch.randn(PARTICLES + 1, xs.shape[1], generator=torch.Generator().manual_seed(0))
    particles = noise[0] / 2 + noise[1:] / len(xs) ** 0.5  # as wide and as far from zero as the posterior
    total = torch.zeros(PARTICLES, dtype=torch.float64)
    begin = time.perf_counter()
    for few_x, few_y in zip(xs.split(SWEPT_ROWS), ys.split(SWEPT_ROWS), strict=True):
        eta = few_x @ particles.T
        total += few_y @ eta - torch.nn.functional.softplus(eta).sum(0)
    return Run(None, time.perf_counter() - begin, 0.0, (float(PARTICLES), 0.0))


METHODS: dict[str, Callable[[Array, Array, int, int, int], Run]] = {
    "distilled": distilled,
    "numpyro_nuts": numpyro_nuts,
    "pyro_nuts": pyro_nuts,
    "numpyro_hmcecs": numpyro_hmcecs,
    "laplace": laplace,
    "weighted_laplace": weighted_laplace,
    "bare_sweep": bare_sweep,
}


class _Compilation:
    """Seconds from now on in which JAX traced or compiled; its events nest, so that intervals are joined."""

    def __init__(self, jax: Any) -> None:
        self.intervals: list[tuple[float, float]] = []
        jax.monitoring.register_event_duration_secs_listener(self._note)

    def _note(self, event: str, seconds: float, **_: Any) -> None:
        if event.startswith("/jax/core/compile"):
            now = time.perf_counter()
            self.intervals.append((now - seconds, now))

    @property
    def seconds(self) -> float:
        total, reached = 0.0, -np.inf
        for start, end in sorted(self.intervals):
            total += max(0.0, end - max(start, reached))
            reached = max(reached, end)
        return total


def _numpyro() -> tuple[Any, Any, _Compilation]:
    """JAX, NumPyro, and a clock of compilation."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import jax
        import numpyro
        import numpyro.infer
    return jax, numpyro, _Compilation(jax)


def _numpyro_model(numpyro: Any, subsample: int | None = None) -> Callable[..., None]:
    dist = numpyro.distributions

    def model(x: Any, y: Any) -> None:
        w = numpyro.sample("w", dist.Normal(0.0, 1.0).expand([x.shape[-1]]).to_event(1))
        with numpyro.plate("data", len(x), subsample_size=subsample):
            few_x, few_y = (x, y) if subsample is None else (numpyro.subsample(x, 1), numpyro.subsample(y, 0))
            numpyro.sample("y", dist.Bernoulli(logits=few_x @ w), obs=few_y)

    return model
