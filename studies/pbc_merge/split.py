"""One split of the PBC patients: four hospitals that lack different values, and what they know together."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib
import torch
from torch import Tensor

from bayesdd import dbn
from bayesdd.dbn import Template, merge
from bayesdd.dbn.inference import Pooled, inference_data, pooled, predictive
from bayesdd.dbn.learning import edges
from bayesdd.dbn.likelihood.source import Source
from studies.pbc_merge.pbc import LABS, LACKING

# What a clinician would draw first: every value follows itself, bilirubin (the liver's failure to excrete) drives the
# rest, albumin (its failure to build) comes before clotting.
TEMPLATE = Template(
    tuple(LABS),
    intra=(
        ("bilirubin", "albumin"),
        ("bilirubin", "alkaline"),
        ("bilirubin", "ast"),
        ("bilirubin", "prothrombin"),
        ("albumin", "prothrombin"),
        ("albumin", "platelets"),
    ),
    inter=(
        *((name, name) for name in LABS),
        *(("bilirubin", name) for name in LABS if name != "bilirubin"),
        ("albumin", "bilirubin"),
        ("ast", "bilirubin"),
        ("albumin", "platelets"),
    ),
)
HELD_OUT = 0.25
ENOUGH = 500  # draws from which chains that disagree are a finding
SHOWN = ("bilirubin", "albumin")


class Split:
    """One split of the patients, its hospitals and their posteriors.

    Args:
        x: All patients' sequences.
        split: Number of the split, and seed.
        draws: Draws of each joint posterior.
    """

    def __init__(self, x: Tensor, split: int, draws: int) -> None:
        order = torch.randperm(len(x), generator=torch.Generator().manual_seed(split))
        held = round(HELD_OUT * len(x))
        self.seed, self.draws = split, draws
        self.test, self.train = x[order[:held]], x[order[held:]]
        self.hospitals = []
        for part, lacking in zip(self.train.tensor_split(len(LACKING)), LACKING, strict=True):
            names = [name for name in LABS if name not in lacking]
            self.hospitals.append(Source({"x": part}, variables=names))

    @functools.cached_property
    def full(self) -> Pooled:
        """The posterior given what the hospitals have."""
        return self._given(self.hospitals)

    @functools.cached_property
    def open(self) -> Pooled:
        """The posterior given all values of all their patients."""
        return self._given([Source({"x": self.train})])

    def _given(self, sources: list[Source]) -> Pooled:
        # Few draws, as the smoke run takes, disagree by chance: no reason for minutes of HMC.
        return pooled(TEMPLATE, sources, draws=self.draws, seed=self.seed, fallback=self.draws >= ENOUGH)

    @functools.cache  # noqa: B019 (a split lives as long as the study)
    def of_rows(self, size: int) -> dict[str, Tensor]:
        """Draws of the posterior given complete distilled rows."""
        found = merge(TEMPLATE, self.hospitals, size=size, seed=self.seed, complete=True, full=self.full)
        return dbn.conjugate(TEMPLATE, found.data, found.weight).draw(self.draws, seed=self.seed)

    def records(self, sizes: tuple[int, ...]) -> Iterator[dict[str, Any]]:
        """Nats a held-out patient, by method and M."""
        yield self._judged("all hospitals", 0, self.full.draws)
        yield self._judged("nothing withheld", 0, self.open.draws)
        for size in sizes:
            yield self._judged("distilled", size, self.of_rows(size))
            patients = self._given([Source({"x": self.train[-size:]})])
            yield self._judged("patients measured in full", size, patients.draws)

    def _judged(self, method: str, size: int, draws: dict[str, Tensor]) -> dict[str, Any]:
        few = {site: draws[site][:: max(1, self.draws // 250)] for site in TEMPLATE.sites}
        return {"method": method, "M": size, "nats": float(predictive(TEMPLATE, few, {"x": self.test}).mean())}

    def coefficients(self, size: int) -> list[dict[str, Any]]:
        """Means and deviations of the yearly course of bilirubin and albumin, three posteriors."""
        columns = {"nothing withheld": self.open.draws, "all hospitals": self.full.draws}
        columns[f"{size} distilled rows"] = self.of_rows(size)
        return [
            {
                "coefficient": f"{site} on {str(term).replace('_before', ' a year before')}",
                "posterior": name,
                "mean": float(draws[site][:, place].mean()),
                "sd": float(draws[site][:, place].std()),
            }
            for site in SHOWN
            for place, term in enumerate(TEMPLATE.coords[f"{site}_term"])
            for name, draws in columns.items()
        ]

    def edges(self) -> list[tuple[str, str, float]]:
        """Edges that the hospitals together find more probable than not: parent, child, probability."""
        few = self.draws < ENOUGH
        settings: dict[str, Any] = {"draws": self.draws // 8, "burn": 14} if few else {"draws": self.draws // 2}
        found = edges(TEMPLATE, self.hospitals, seed=self.seed, **settings).probability
        return [(*pair, share) for pair, share in found.items() if share > 0.5]

    def figure(self, size: int, path: Path) -> None:
        """Coefficients of bilirubin and albumin under three posteriors, as ArviZ draws them."""
        matplotlib.use("Agg")
        from matplotlib import pyplot as plt

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # ArviZ 0.23 announces 1.x on import
            import arviz
        models = {
            "nothing withheld": inference_data(TEMPLATE, self.open.draws),
            "all hospitals": inference_data(TEMPLATE, self.full.draws),
            f"{size} distilled rows": inference_data(TEMPLATE, self.of_rows(size)),
        }
        if "InferenceData" in vars(arviz):
            axes = arviz.plot_forest(
                list(models.values()),
                model_names=list(models),
                var_names=list(SHOWN),
                combined=True,
                hdi_prob=0.9,
                figsize=(8, 9),
            )
            figure = axes[0].figure
        else:  # ArviZ 1.x
            draw: Any = arviz.plot_forest
            plots = draw(models, var_names=list(SHOWN), combined=True, ci_probs=(0.5, 0.9))
            figure = plots.viz["figure"].item()
        figure.savefig(path, dpi=130, bbox_inches="tight")
        plt.close("all")
