"""Merging sources that see different variables into one small dataset.

By default the rows are **masked**: each keeps a source's pattern of missing entries, and with enough rows they come as
close to the joint posterior as one likes. ``complete=True`` gives a rectangular table with all variables for tools that
take no missing entries. A complete row states something about every pair of variables, even pairs that no source has
seen together, so that its posterior is too sure of what nobody has measured: a warning names the parameters that it
over-states and the pairs, :func:`overstated` gives the table. Its predictions need not suffer.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial

import pandas as pd
import torch

from bayesdd.data import CertificateWarning, Distilled
from bayesdd.data.certificate import TOLERANCE
from bayesdd.data.columns import fingerprint
from bayesdd.dbn.inference import Pooled, conjugate, pooled
from bayesdd.dbn.likelihood.source import Source, apart, described, listed
from bayesdd.dbn.merging.complete import complete_rows
from bayesdd.dbn.merging.coreset import chosen_rows
from bayesdd.dbn.merging.masked import Gap, masked_rows
from bayesdd.dbn.merging.mixed import mixed_rows
from bayesdd.dbn.merging.soft import soft_rows
from bayesdd.dbn.merging.verdict import of_complete_rows, of_masked_rows
from bayesdd.dbn.template.columns import as_columns
from bayesdd.dbn.template.template import Template
from bayesdd.numerics.exclusive import exclusive
from bayesdd.numerics.pareto import KHAT_LIMIT
from bayesdd.numerics.refusal import Refusal

TOO_SURE = 0.8  # ratio of posterior deviations, distilled over full, below which a parameter is over-stated
SHOWN = 4  # parameters that a warning names


@exclusive
def merge(
    template: Template,
    sources: Sequence[Source],
    *,
    size: int,
    seed: int = 0,
    complete: bool = False,
    equal_weights: bool = False,
    learn_edges: bool = False,
    slices: int | None = None,
    full: Pooled | None = None,
    certificate: bool = True,
) -> Distilled:
    """Distils several sources into few weighted rows of one template.

    Args:
        template: The template, without noise: the student that people fit to the result.
        sources: The sources.
        size: Number M of rows.
        seed: Seed.
        complete: Rows without missing entries.
        equal_weights: One common weight, for tools that take none.
        learn_edges: Whether the edges will be learned again from complete linear-Gaussian rows: the rows then imply the
            template's edges and no others. If they are few, each has weight one. Learn the template's own edges from
            the sources first (:func:`bayesdd.dbn.edges`).
        slices: Number T of slices of complete rows; default the longest sequence's.
        full: The joint posterior from :func:`bayesdd.dbn.pooled`, if it is at hand; it serves every size.
        certificate: Whether the rows get a certificate. For incomplete categorical sources it may take longer than
            the rows.

    Returns:
        Rows and weights, with a certificate in nats against the joint posterior: of complete rows at fresh draws of
        their posterior, of masked ones at draws of the joint posterior that their fit has not seen. A second look,
        without use of the joint posterior, is ``bayesdd.certify(dbn.target(template, sources), rows,
        student=dbn.student(template, T, sources))``. The provenance holds ``excess`` (nats above the closest posterior
        of its kind), ``apart`` (pairs of variables that no row has seen together), ``overstated`` (parameter -> ratio
        of its posterior deviations, distilled over full, where below 0.8) and the posterior's R-hat.

    Raises:
        Refusal: Sources, template or size do not fit.

    Warns:
        CertificateWarning: Complete rows over-state parameters.
    """
    if learn_edges and (template.states or not complete):
        raise Refusal("merge(learn_edges=True) is for complete=True and linear-Gaussian variables.")
    if complete and (odd := template.probits or (template.terminal,) * bool(template.terminal)):
        why = "a linear-Gaussian parent" if template.probits else "an end, after which nothing is seen"
        raise Refusal(
            f"merge(complete=True) has no closed form for {odd[0]!r}, which has {why}: leave complete=True out, for "
            f"real rows of the sources with weights, or {odd[0]!r} out of the template."
        )
    if size < 1:
        raise Refusal(f"merge needs size= of at least one row, got {size}.")
    lags = template.structure.lags
    if learn_edges and lags > 1:
        raise Refusal(
            "merge(learn_edges=True) is for edges within a slice and from the slice before, and the template has a lag "
            f"of {lags}: leave learn_edges=True out."
        )
    full = pooled(template, sources, seed=seed) if full is None else full
    if complete and slices is not None and slices <= lags < full.slices:
        raise Refusal(
            f"merge(slices={slices}) makes rows that say nothing of later slices, on which the sources have seen "
            f"something: ask for at least {lags + 1} slices."
        )
    pairs = apart(template, full.rows)
    details = {
        "task": "bayesdd.dbn:student",
        "sites": {site: list(shape) for site, shape in template.sites.items()},
        "fingerprint": [fingerprint(as_columns(template, rows)) for rows in full.rows],
        "seed": seed,
        "rows": full.count,
        "size": size,
        "objective": "closed-form forward KL" if complete else "half-variance by least squares",
        "rhat": full.rhat,
        "sequences": described(template, full.sources),
        "apart": pairs,
    }
    if not complete:
        masked = chosen_rows if template.states else partial(masked_rows, seed=seed)
        x, static, weight, ratio = masked(full, size, equal_weights=equal_weights)
        gap, verdict = Gap.of(ratio), of_masked_rows(ratio, TOLERANCE) if certificate else None
        if not (gap.kl_forward <= TOLERANCE and gap.kl_reverse <= TOLERANCE and gap.khat < KHAT_LIMIT):
            warnings.warn(
                f"merge: at size={size} the distilled posterior is {gap.kl_forward:.2g} nats from the full one "
                f"(reverse {gap.kl_reverse:.2g}, k-hat {gap.khat:.2f}): more rows come closer.",
                CertificateWarning,
                stacklevel=3,
            )
        details |= {"gap": asdict(gap)}
        return Distilled(as_columns(template, (x, static)), weight, verdict, provenance=details)
    states = mixed_rows if template.mixed else soft_rows
    whole = states if template.states else partial(complete_rows, learn_edges=learn_edges)
    x, static, weight, excess = whole(
        full, size, full.slices if slices is None else slices, seed=seed, equal_weights=equal_weights
    )
    details |= {"excess": excess}
    found = Distilled(as_columns(template, (x, static)), weight, provenance=details)
    verdict = of_complete_rows(full, found, TOLERANCE, seed) if certificate else None
    table = overstated(full, found)
    sure = table[table["ratio"] < TOO_SURE]["ratio"]
    if len(sure):
        worst = ", ".join(f"{name} ({ratio:.2f})" for name, ratio in sure.sort_values().head(SHOWN).items())
        unseen = f"; never seen together: {listed(pairs)}" if pairs else ""
        warnings.warn(
            f"complete rows over-state {len(sure)} of {len(table)} parameters (posterior deviation, distilled over "
            f"full): {worst}{unseen}. Masked rows (complete=False) need not.",
            CertificateWarning,
            stacklevel=3,
        )
    details |= {"overstated": {str(k): float(v) for k, v in sure.items()}}
    return replace(found, certificate=verdict, provenance=details)


def overstated(full: Pooled, distilled: Distilled, *, draws: int = 4000, seed: int = 0) -> pd.DataFrame:
    """Posterior means and deviations of every parameter, full and as complete distilled rows have them.

    Returns:
        One row a parameter (``site[term]``): ``mean``, ``sd``, ``mean_distilled``, ``sd_distilled``, and ``ratio`` of
        the deviations; below 1 the rows claim to know more than all sources do.
    """
    template = full.template
    found = conjugate(template, distilled.data, distilled.weight).draw(draws, seed)
    names, columns = [], []
    for site in template.sites:
        both = [values.reshape(len(values), -1) for values in (full.draws[site], found[site])]
        names += labels(template, site)
        columns.append(torch.stack([moment for some in both for moment in (some.mean(0), some.std(0))], 1))
    table = pd.DataFrame(torch.cat(columns).numpy(), names, ["mean", "sd", "mean_distilled", "sd_distilled"])
    return table.assign(ratio=table["sd_distilled"] / table["sd"])


def labels(template: Template, site: str) -> list[str]:
    """Names of a site's entries, with the labels of its axes: ``dose[pressure_before]``, ``sex[0]``."""
    axes = [template.coords[dim] for dim in template.dims[site]]
    if not axes:
        return [site]
    index = pd.MultiIndex.from_product(axes)
    return [f"{site}[{', '.join(map(str, entry))}]" for entry in index.to_flat_index()]
