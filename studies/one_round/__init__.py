r"""Sources that cannot share rows, one message each: Bayesian federated inference, averages, consensus, summaries.

Question: three or ten sources hold 50, 200 or 1,000 rows each of one regression (six coefficients, logistic or
Poisson), whose covariates have the same distribution everywhere or another in each. Each sends one message. How far is
what the messages say from the posterior given all rows?
Claim: the sum of ``bayesdd.summary``, taken again at its own mode where the certificate refuses the first, and twenty
rows distilled from it are closer to that posterior than Bayesian federated inference, averages and consensus Monte
Carlo, and than the Laplace approximation of all rows, in every setting and seed.
How it could fail: fifty rows are too few for three derivatives at another source's mode; a certificate that passes a
first round which a normal beats; twenty rows may not hold what the sum knows. A second round is a second message.
Cost: about two minutes on one thread.

The rivals have the prior N(0, I) counted once; of L sources, theta_l is a mode and A_l minus the Hessian there.

- Bayesian federated inference (BFI): each source fits under its own prior N(0, Lambda_l^-1), here the common one;
  A = sum A_l + Lambda - sum Lambda_l, theta = A^-1 sum A_l theta_l, and the posterior is N(theta, A^-1). Exact where
  log-likelihoods are quadratic. Jonker, Pazira & Coolen, "Bayesian federated inference for estimating statistical
  models based on non-shared multicenter data sets", Statistics in Medicine, 2024 (arXiv 2302.07677).
- Averages of modes under L-th roots of the prior, weighted by numbers of rows; or coefficient by coefficient by inverse
  variances, as a fixed-effect meta-analysis of published tables does. With all covariances that would be BFI.
- Consensus Monte Carlo: draws of each source's posterior under the L-th root of the prior, averaged with the inverses
  of their covariances. The average has mean and covariance of the product of normals with the sources' moments, which
  is what stands here: no noise of draws is held against it. Scott et al., "Bayes and big data: the consensus Monte
  Carlo algorithm", International Journal of Management Science and Engineering Management, 2016.
- Laplace of all rows: mode and curvature, which takes several rounds of gradients and Hessians.

``--data`` or BAYESDD_DATA names a folder with trauma.csv of the R package BFI (371 patients of three hospitals, MIT
licence), which is no part of this project: its posterior is measured too, and BFI compared with the package's vignette.
"""

from __future__ import annotations

import itertools
import math
import os
import time
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch

import bayesdd
from bayesdd.data.certificate import TOLERANCE
from bayesdd.summaries.posterior import summed
from models import linear_regression
from studies.one_round.rivals import (
    DRAWS,
    LOGISTIC,
    POISSON,
    Family,
    Normal,
    Rows,
    Sampled,
    bfi,
    by_rows,
    by_variance,
    consensus,
    fitted,
    moments,
    sampled,
)
from studies.shared import stamps, tables
from studies.shared.cells import RESULTS
from studies.shared.true_kl import Array, Divergences, Posterior, between, prepared

SEEDS, SIZE, DIM = 3, 20, 6
ROUNDS = 2  # at most
EXACT = 1e-10  # of BFI where it is exact
PRINTED = 1e-4  # a unit of the last digit of the vignette, whose optimiser has a tolerance of its own
VIGNETTE = {
    "mean": (-1.4434, -0.2473, 1.2189, 0.4939, -1.7375),
    "sd": (0.2465, 0.4187, 0.2190, 0.1945, 0.2491),
}
LAPLACE, BFI, BY_ROWS, BY_VARIANCE, CONSENSUS = "Laplace of all rows", "BFI", "by rows", "fixed effect", "consensus"
FIRST, SUM, DISTILLED = "summaries, one round", "summaries", f"{SIZE} rows"
RIVALS, OURS = (LAPLACE, BFI, BY_ROWS, BY_VARIANCE, CONSENSUS), (FIRST, SUM, DISTILLED)


class Setting(NamedTuple):
    """A federation; its rows are those of ``data`` if there are any."""

    family: Family
    rows: int
    sources: int
    shifted: bool
    data: tuple[Rows, ...] = ()


SETTINGS = (
    *itertools.starmap(Setting, itertools.product((LOGISTIC,), (50, 200, 1000), (3, 10), (False, True))),
    *itertools.starmap(Setting, itertools.product((POISSON,), (50, 200), (3,), (True,))),
)
SMOKE = (Setting(LOGISTIC, 60, 3, False),)


def main(
    *, smoke: bool = False, data: str | Path | None = None, results: str | Path = RESULTS, seeds: int = SEEDS
) -> pd.DataFrame:
    """Compares every federation with all its rows, prints the tables and writes them to ``results/one_round.md``.

    Args:
        smoke: One small federation; nothing is written.
        data: Folder that holds trauma.csv; default the environment's BAYESDD_DATA.
        results: Folder of the table.
        seeds: Simulated federations of each setting.

    Returns:
        One row a setting; ``met`` says whether the claim holds there.
    """
    torch.set_num_threads(1)
    path = Path(data or os.environ.get("BAYESDD_DATA") or "no such folder") / "trauma.csv"
    settings, checks = SMOKE if smoke else SETTINGS, [_exactness()]
    if path.is_file() and not smoke:
        hospitals = trauma(path)
        settings = (*settings, Setting(LOGISTIC, 0, len(hospitals), True, hospitals))
        checks.append(_vignette(hospitals))
    begin, found, rows = time.process_time(), [], []
    for setting in settings:
        records = [
            record | {"seed": seed}
            for seed in range(1 if smoke or setting.data else seeds)
            for record in measured(setting, seed)
        ]
        found += records
        rows.append(_row(setting, pd.DataFrame(records)))
        print(f"{', '.join(map(str, rows[-1].values()))}: {(time.process_time() - begin) / 60:.1f} min", flush=True)
    table, checked = pd.DataFrame(rows), pd.DataFrame(checks)
    table.attrs = {"claims": pd.DataFrame({"met": [*table.met, *checked.met]})}
    tables.report(
        None if smoke else Path(results) / "one_round.md",
        "# One round of federation",
        "KL(posterior given all rows, what the messages say), nats; median over seeds (worst):",
        table,
        "All settings together:",
        _methods(pd.DataFrame(found)),
        "Is this BFI as published?",
        checked,
        notes=[
            f"{seeds} simulated federations a setting, {DIM} coefficients, prior N(0, I). shifted: every source's "
            "covariates have means of their own, N(0, 1). KLs, means and sds by importance sampling in NumPy "
            f"({DRAWS:,} draws), independent of the certificate; consensus as the normal of its mean and covariance.",
            f"{FIRST}: three derivatives at the mode of the largest source. {SUM}: the same, taken again at the "
            f"sum's mode where what they leave out is more than a certificate allows (at most {ROUNDS} rounds). "
            f"{DISTILLED}: distilled from that sum in the first seed, and certified there. "
            "inf: its mass lies far from its mode. met: sum and rows are closer than all others in every seed. "
            f"beaten: federations of all in which {FIRST} is closer.",
            "shift: largest of a mean, in posterior sds; sd ratio: the one furthest from 1. numbers: a source sends, "
            "all rounds; seconds: of the processor, of a source and of who combines (0: under a millisecond); medians.",
            *([] if path.is_file() or smoke else ["skipped trauma: its data are not there (--data or BAYESDD_DATA)"]),
            stamps.last_line(stamps.machine(1), [] if smoke else [stamps.source_hash("studies.one_round")]),
        ],
        floats=".2g",
    )
    return table


def trauma(path: Path) -> tuple[Rows, ...]:
    """Rows of the three hospitals: constant, sex, age, injury severity, coma scale; died.

    Covariates are ten times those of the vignette, so that N(0, I) is its prior N(0, 100 I) of coefficients.
    """
    table = pd.read_csv(path, sep=";").astype(float)
    measured = table[["age", "ISS", "GCS"]]
    x = 10 * np.column_stack([np.ones(len(table)), table.sex, (measured - measured.mean()) / measured.std()])
    hospital, y = table.hospital.to_numpy(), table.mortality.to_numpy()
    return tuple((x[hospital == number], y[hospital == number]) for number in np.unique(hospital))


def measured(setting: Setting, seed: int) -> list[dict[str, Any]]:
    """One federation, a record for each way to combine its messages."""
    family, parts = setting.family, setting.data or _simulated(setting, seed)
    every = np.concatenate([x for x, _ in parts]), np.concatenate([y for _, y in parts])
    prior, share = np.eye(every[0].shape[1]), 1 / len(parts)
    latents = len(prior)
    second = latents + latents * (latents + 1) // 2
    pooled, at_all = _timed(lambda: fitted(family, every))
    full = family.posterior(*every, np.ones(len(every[1])))
    known, truth = prepared(full, pooled.mean, draws=DRAWS, seed=seed), sampled(family, every, 1.0, seed)

    def scored(made: Posterior) -> dict[str, float]:
        try:
            return _of_any(between(full, made, pooled.mean, draws=DRAWS, seed=seed, known=known))
        except ArithmeticError:  # a cubic far from its point may have its mass far from its mode
            return {"KL": math.inf, "shift": math.inf, "ratio": math.nan}

    whole, at_whole = _timed(lambda: [fitted(family, rows) for rows in parts])
    shared, at_shared = _timed(lambda: [fitted(family, rows, share) for rows in parts])
    means, at_means = _timed(lambda: [moments(sampled(family, rows, share, seed)) for rows in parts])
    found: list[tuple[str, Normal | Posterior, dict[str, Any]]] = []
    for name, sent, used, made in (
        (BFI, second, at_whole, bfi(whole, prior, [prior] * len(parts))),
        (BY_ROWS, second, at_shared, by_rows(shared, [len(y) for _, y in parts])),
        (BY_VARIANCE, 2 * latents, at_shared, by_variance(shared)),
        (CONSENSUS, second, at_means, consensus(means)),
    ):
        found.append((name, made, {"numbers": sent, "source": used * share, "centre": 0.0}))
    found.append((LAPLACE, pooled, {"numbers": None, "source": None, "centre": at_all}))
    found += _summaries(family, parts, seed)
    return [
        {"method": name} | costs | (_of_normal(truth, made) if isinstance(made, Normal) else scored(made))
        for name, made, costs in found
    ]


def _simulated(setting: Setting, seed: int) -> tuple[Rows, ...]:
    rng = np.random.default_rng(seed)
    w, family = rng.normal(size=DIM) * setting.family.scale, setting.family
    parts = []
    for _ in range(setting.sources):
        centre = rng.normal(size=DIM - 1) * setting.shifted
        x = np.column_stack([np.ones(setting.rows), centre + rng.normal(size=(setting.rows, DIM - 1))])
        mean = family.mean(x @ w)
        y = rng.uniform(size=len(x)) < mean if family is LOGISTIC else rng.poisson(mean)
        parts.append((x, y.astype(float)))
    return tuple(parts)


def _summaries(family: Family, parts: Sequence[Rows], seed: int) -> list[tuple[str, Posterior, dict[str, Any]]]:
    """The sum after one round, and after those that its certificate asks for, with rows distilled from the latter."""
    tasks = [bayesdd.Task(family.model, {"x": x, "y": y}) for x, y in parts]
    largest = max(tasks, key=lambda task: task.size)
    first, at_first = _timed(lambda: bayesdd.summary(largest))
    at, sent, used, centre = first.at, 0, at_first / len(parts), 0.0
    found: list[tuple[str, Posterior, dict[str, Any]]] = []
    rows: bayesdd.Distilled | None = None
    certified = True
    for number in range(1, ROUNDS + 1):
        sums, seconds = _timed(partial(_summed, tasks, at))
        combined = bayesdd.combine(sums)
        used, sent = used + seconds / len(parts), sent + _numbers(combined)
        # Half of a remainder's square is part of the certificate's interval, whatever the rows.
        refused = number < ROUNDS and combined.error**2 / 2 > TOLERANCE
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # what is not certified is counted in the table
            cubic = _density(summed(combined, largest, "study"))
            if not refused and seed == 0:
                distil = partial(bayesdd.distill, combined, SIZE, student=largest, seed=seed, progress=False)
                rows, seconds = _timed(distil)
                centre, certified = centre + seconds, bool(rows.certificate and rows.certificate.ok)
        costs = {"numbers": sent, "source": used, "rounds": number, "centre": 0.0}
        if number == 1:
            found.append((FIRST, cubic, costs))
        if not refused and certified:
            break
        at = combined.mode
    found.append((SUM, cubic, costs | {"certified": combined.error**2 / 2 <= TOLERANCE}))
    if rows is not None:
        x, y = (rows.data[name].numpy() for name in ("x", "y"))
        costs |= {"centre": centre, "certified": certified}
        found.append((DISTILLED, family.posterior(x, y, rows.weight.numpy()), costs))
    return found


def _summed(tasks: Sequence[bayesdd.Task], at: torch.Tensor) -> list[bayesdd.Summary]:
    return [bayesdd.summary(task, at=at) for task in tasks]


def _numbers(one: bayesdd.Summary) -> int:
    """Distinct derivatives to third order, and the remainders."""
    dim = len(one.at)
    return 1 + dim + dim * (dim + 1) // 2 + dim * (dim + 1) * (dim + 2) // 6 + len(one.scales)


def _density(task: bayesdd.Task) -> Posterior:
    def log_joint(theta: Array) -> Array:
        draws = torch.as_tensor(theta)
        found: Array = (task.log_prior(draws) + task.log_likelihood(task.data, draws).sum(1)).numpy()
        return found

    return Posterior(log_joint)


def _of_normal(truth: Sampled, given: Normal) -> dict[str, float]:
    """Scores of a normal, whose density and moments are known: by draws of the posterior given all rows alone.

    Of the normal's importance weights the mean is known, 1. Where the two are close, weights err alike, and most of the
    error of the KL goes with them.
    """
    squares = (((truth.theta - given.mean) @ given.precision) * (truth.theta - given.mean)).sum(1)
    log_density = (np.linalg.slogdet(given.precision)[1] - len(given.mean) * math.log(2 * math.pi) - squares) / 2
    payoff, p = truth.log_density - log_density, truth.weight * len(truth.weight)
    q, kl = np.exp(-payoff) * p, float(truth.weight @ payoff)
    (_, both), (_, own) = np.cov(p * (payoff - kl) - p, q)
    kl -= both / own * (q.mean() - 1)
    sd = np.sqrt(np.diag(np.linalg.inv(given.precision)))
    return {"KL": kl} | _apart(_mean_and_sd(truth.theta, truth.weight), (given.mean, sd))


def _of_any(found: Divergences) -> dict[str, float]:
    """Scores of a density that is known up to a factor."""
    both = [_mean_and_sd(found.theta, np.exp(log_weight)) for log_weight in (found.log_p, found.log_q)]
    return {"KL": found.forward} | _apart(*both)


def _apart(truth: tuple[Array, Array], given: tuple[Array, Array]) -> dict[str, float]:
    """Worst shift of a mean in sds, and the ratio of sds that is furthest from 1."""
    ratio = given[1] / truth[1]
    shift = float(np.abs((given[0] - truth[0]) / truth[1]).max())
    return {"shift": shift, "ratio": float(ratio[np.abs(np.log(ratio)).argmax()])}


def _mean_and_sd(theta: Array, weight: Array) -> tuple[Array, Array]:
    mean = weight @ theta
    return mean, np.sqrt(weight @ (theta - mean) ** 2)


def _timed(make: Callable[[], Any]) -> tuple[Any, float]:
    begin = time.process_time()
    return make(), time.process_time() - begin


def _exactness() -> dict[str, Any]:
    """BFI of three sources of a linear regression with known noise against its exact posterior."""
    task = linear_regression.task(rows=90, dim=4)
    x, y = (task.data[name].numpy() for name in ("x", "y"))
    sources = []
    for part in range(3):
        mean, covariance = linear_regression.exact(x[part::3], y[part::3])
        sources.append(Normal(mean.numpy(), np.linalg.inv(covariance.numpy())))
    found = bfi(sources, np.eye(4), [np.eye(4)] * 3)
    mean, covariance = linear_regression.exact(x, y)
    apart = [found.mean - mean.numpy(), np.linalg.inv(found.precision) - covariance.numpy()]
    return _check("linear regression, known noise: the exact posterior", apart, EXACT)


def _vignette(hospitals: Sequence[Rows]) -> dict[str, Any]:
    """BFI of the three hospitals against what the R package's vignette prints, in its units."""
    prior = np.eye(len(VIGNETTE["mean"]))
    found = bfi([fitted(LOGISTIC, rows) for rows in hospitals], prior, [prior] * len(hospitals))
    sd = np.sqrt(np.diag(np.linalg.inv(found.precision)))
    apart = [10 * found.mean - VIGNETTE["mean"], 10 * sd - VIGNETTE["sd"]]
    return _check("trauma: coefficients and sds of the R package's vignette", apart, PRINTED)


def _check(name: str, apart: Sequence[Array], allowed: float) -> dict[str, Any]:
    largest = max(float(np.abs(part).max()) for part in apart)
    return {"BFI against": name, "largest difference": largest, "allowed": allowed, "met": largest <= allowed}


def _row(setting: Setting, records: pd.DataFrame) -> dict[str, Any]:
    """A setting as it is printed."""
    by_seed = records.pivot(index="seed", columns="method", values="KL")
    last = records[records.method.eq(SUM)]
    sizes = [len(y) for _, y in setting.data]
    return {
        "family": "trauma, logistic" if setting.data else setting.family.name,
        "rows a source": " to ".join(map(str, (min(sizes), max(sizes)))) if sizes else f"{setting.rows:,}",
        "sources": setting.sources,
        "covariates": "patients'" if setting.data else "shifted" if setting.shifted else "alike",
        **{name: _spread(by_seed[name]) for name in (*RIVALS, FIRST)},
        "rounds": ", ".join(map(str, sorted(last.rounds.astype(int)))),
        **{name: _spread(by_seed[name]) for name in (SUM, DISTILLED)},
        "certified": bool(records[records.method.eq(DISTILLED)].certified.all()),
        "met": bool((by_seed[[SUM, DISTILLED]].max(axis=1) < by_seed[list(RIVALS)].min(axis=1)).all()),
    }


def _methods(records: pd.DataFrame) -> pd.DataFrame:
    """What each way costs and how far its means and sds are off, over all federations."""
    place = records.assign(federation=(records.method == records.method.iloc[0]).cumsum())
    kls = place.pivot(index="federation", columns="method", values="KL")
    rows = []
    for name in (*RIVALS, *OURS):
        some = records[records.method.eq(name)]
        ratios = some.ratio.dropna().sort_values(key=lambda ratio: np.log(ratio).abs())
        typical, furthest = ratios.iloc[len(ratios) // 2], ratios.iloc[-1]
        rows.append(
            {
                "": name,
                "numbers": "" if name == LAPLACE else f"{some.numbers.median():.0f}",
                "shift": _spread(some["shift"]),
                "sd ratio": f"{typical:.3f} ({furthest:.2f})",
                "seconds, source": some.source.median(),
                "centre": some.centre.median(),
                "beaten": "" if name in OURS else f"{int((kls[FIRST] < kls[name]).sum())}/{len(kls)}",
            }
        )
    return pd.DataFrame(rows)


def _spread(values: pd.Series[float]) -> str:
    values = values.dropna()
    median, worst = float(values.median()), float(values.max())
    return f"{median:.2g}" if len(values) == 1 else f"{median:.2g} ({worst:.2g})"
