r"""Edges from sources that see different variables, with noise: their posterior, by data augmentation.

A sweep draws a network given the completed rows, its parameters given both, and the rows given all:

.. math:: G \mid z \sim \text{orders}, \qquad \theta \mid G, z \sim \text{Normal-inverse-gamma}, \qquad
          z \mid y, G, \theta \sim \text{Normal}.

The network is drawn exactly among up to twelve variables (``orders``), beyond by a chain of orders (``order_chain``),
which is exact too where no edge leads from a variable to another of its slice: every variable's parents are then drawn
by themselves.

Learning edges from rows completed once, or from few distilled rows, would treat imputed values as measured ones and
find false edges. Sources: Tanner & Wong, JASA 1987; Friedman, "The Bayesian structural EM algorithm", UAI 1998,
which maximises expected scores where this draws.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from graphlib import CycleError, TopologicalSorter

import pandas as pd
import torch
from torch import Tensor
from torch.func import vmap

from bayesdd.dbn.inference.augmentation import Augmentation
from bayesdd.dbn.inference.patterns import patterns_of
from bayesdd.dbn.inference.regressions import Layout, places_of
from bayesdd.dbn.learning import order_chain
from bayesdd.dbn.learning.families import NODES, Edge, Rules, Search, nodes, refuse_unsearched
from bayesdd.dbn.learning.orders import Candidates, Pairs, drawn
from bayesdd.dbn.learning.scores import Sample, bge
from bayesdd.dbn.learning.search import with_edges
from bayesdd.dbn.likelihood.missing import unrolled
from bayesdd.dbn.likelihood.source import Source, gathered, with_noise
from bayesdd.dbn.template.structure import Values
from bayesdd.dbn.template.template import Template, saturated
from bayesdd.numerics import arguments, words
from bayesdd.numerics.exclusive import exclusive
from bayesdd.numerics.refusal import Refusal

CHAINS = 4  # one of two chains that holds on to a false edge would give it a share of a half
BURN = 210
FIRST = 2 / 7  # of the burn-in with all edges: rows completed without edges are forgotten too slowly
EXACT = 12  # variables: more have too many subsets for every sweep
PARENTS = 4, 3  # most parents, and beyond so many variables
AT_MOST = 0.1  # mean number of parents below the most that is looked at, from which on more may be missed
APART = 0.8  # difference of an edge's shares between chains that asks for more draws


@dataclass(frozen=True, eq=False, repr=False)
class Edges(words.Described):
    """What sources say of the edges.

    Attributes:
        template: The network of the edges that are more probable than not, as long as they close no circle.
        probability: (parent, child) -> share of the draws; parents of the slice before are ``<variable>_before``.
    """

    template: Template
    probability: pd.Series

    @property
    def _said(self) -> tuple[str, dict[str, str]]:
        """What it is in a line, and the likeliest edges."""
        likely = self.probability.sort_values(ascending=False, kind="stable").iloc[: words.MOST]
        found = int((self.probability > 0.5).sum())
        head = f"Edges: {found} of {len(self.probability)} more probable than not"
        return head, {f"{parent} -> {child}": f"{value:.2f}" for (parent, child), value in likely.items()}


@exclusive
def edges(
    template: Template,
    sources: Sequence[Source],
    *,
    draws: int = 200,
    burn: int = BURN,
    seed: int = 0,
    max_parents: int | None = None,
    forbidden: Sequence[Edge] = (),
    required: Sequence[Edge] = (),
    tiers: Sequence[Sequence[str]] = (),
    within: bool = True,
) -> Edges:
    """Posterior of the edges given several incomplete, noisy sources of linear-Gaussian variables.

    A priori a network is as probable as it has orders of its variables in which parents precede children, among those
    of at most ``max_parents`` parents a variable that the rules allow.

    Args:
        template: Names, static variables and priors; its edges are ignored, except ``initial`` ones.
        sources: The sources.
        draws: Sweeps after the burn-in, of each of four chains.
        burn: Sweeps of the burn-in.
        seed: Seed.
        max_parents: Most parents of a variable, those of the slice before and static ones included; default 4, beyond
            twelve variables 3.
        forbidden: Edges (parent, child) that are known not to be; a parent of the slice before is ``NAME_before``.
        required: Edges that are known to be.
        tiers: Groups of variables, earlier ones first: within a slice no edge leads from a later group to an earlier.
        within: Whether there may be edges within a slice. Without them every variable is searched by itself.

    Raises:
        Refusal: Sources and template do not fit, variables are categorical or too many, rules name what is no edge or
            contradict each other, or no draw is asked for.

    Warns:
        UserWarning: The chains disagree, or variables have as many parents as ``max_parents`` is by default.
    """
    if template.states:
        raise Refusal(
            "edges() is for linear-Gaussian variables: merge categorical sources, then learn(score=bdeu); with "
            "both kinds in a template leave the categorical ones out."
        )
    if draws < 1:
        raise Refusal(f"edges() needs draws= of at least one sweep, got {draws}.")
    refuse_unsearched(template)
    # Only the first slice's edges, so that entries stand in one order, whatever network is drawn.
    plain = replace(template, intra=(), inter=())
    rows = gathered(plain, sources)
    augmentation = Augmentation(with_noise(plain, sources), patterns_of(plain, rows), rows[0][0].shape[1])
    generator = torch.Generator().manual_seed(seed)
    default = PARENTS[len(plain.variables) > EXACT]
    most = default if max_parents is None else arguments.whole(max_parents, "edges: max_parents=", 0, NODES)
    search = Search.of(plain, most, Rules(forbidden, required, tiers, within))
    shares = [_Chain.start(plain, augmentation, search, generator).shares(draws, burn) for _ in range(CHAINS)]
    every = [torch.stack(of_kind) for of_kind in zip(*shares, strict=True)]
    if any(float((share.amax(0) - share.amin(0)).max()) > APART for share in every if share.numel()):
        warnings.warn(
            f"edges: {CHAINS} chains disagree on an edge after {draws} sweeps each: ask for more draws=.",
            UserWarning,
            stacklevel=3,
        )
    found = [share.mean(0) for share in every]
    names = (template.variables, template.static)
    full = [
        name
        for some, own in zip(found, names, strict=False)
        for name, at in zip(own, some.sum(0), strict=True)
        if float(at) > most - AT_MOST
    ]
    if full and max_parents is None:
        warnings.warn(
            f"edges: {words.listed(full)} nearly always has {most} parents, the most that are looked at: ask for "
            f"max_parents={most + 1}, which takes longer, or forbid edges.",
            UserWarning,
            stacklevel=3,
        )
    networks = [_likeliest(share, search.after if not k else [0] * len(plain.static)) for k, share in enumerate(found)]
    return Edges(with_edges(plain, networks), _named(plain, found))


@dataclass(eq=False)
class _Chain:
    """One chain: second moments of completed rows and noise scales; entries stand in the order of ``base``."""

    base: Template
    augmentation: Augmentation
    gram: Tensor
    noises: Values
    search: Search
    orders: list[list[int]]
    generator: torch.Generator

    @classmethod
    def start(cls, base: Template, augmentation: Augmentation, search: Search, generator: torch.Generator) -> _Chain:
        """From rows completed without edges."""
        values = augmentation.starts(1, generator)
        gram, _ = augmentation.completed(*augmentation.joint(values), values, generator)
        noises = {site: values[site] for site in augmentation.noise_sites}
        after = [search.after, [0] * len(base.static)]
        orders = [order_chain.start(some, generator) for some in after]
        return cls(base, augmentation, gram, noises, search, orders, generator)

    def shares(self, draws: int, burn: int) -> list[Tensor]:
        """Shares of the draws that have each edge: of a slice ``(nodes, V)``, among static variables if any."""
        sizes = [(len(nodes(self.base)[2]), len(self.base.variables))]
        sizes += [(len(self.base.static), len(self.base.static))] if self.base.static else []
        counts = [torch.zeros(size, dtype=torch.float64) for size in sizes]
        template = saturated(self.base)
        for sweep in range(burn + draws):
            if sweep >= FIRST * burn:
                found = [self._drawn(k, some) for k, some in enumerate(self._candidates(self.gram[0]))]
                template = with_edges(self.base, found)
                for count, pairs in zip(counts, found, strict=True):
                    for parent, child in pairs if sweep >= burn else ():
                        count[parent, child] += 1 / draws
            self._move(template)
        return counts

    def _drawn(self, kind: int, candidates: Candidates) -> Pairs:
        """A network of the slice, or of the static variables."""
        if self.search.separate[kind] or len(self.orders[kind]) > EXACT:
            self.orders[kind], found = order_chain.moved(candidates, self.orders[kind], self.generator)
            return found
        return drawn(candidates, self.generator)

    def _candidates(self, gram: Tensor) -> list[Candidates]:
        """Networks to draw from, given the second moments ``(3, d, d)`` of completed rows."""
        places, blocks = places_of(self.base), []
        for kind, some in enumerate(nodes(self.base)):
            at = [0, *(places[node] for node in some)]
            block = gram[kind][at][:, at]
            nothing = Sample(block.new_zeros(0, len(some)), block.new_zeros(0), ())
            blocks.append(Sample.of_moments(block) if some and float(block[0, 0]) > 0 else nothing)
        return self.search.candidates(blocks, bge)

    def _move(self, template: Template) -> None:
        """Parameters given a network and completed rows, then rows and noise scales."""
        layout, theirs = Layout.of(template), places_of(self.base)
        at = torch.tensor([0, *(theirs[node] for node in places_of(template))])
        found = layout.fitted(self.gram[..., at[:, None], at])
        values = layout.values(*found.draw(layout.real, self.generator))
        slices = self.augmentation.slices
        mean, factor = vmap(lambda v: unrolled(template, v, slices))(values)
        own = [entry for entry, _ in template.structure.entries(slices)]
        order = [own.index(entry) for entry, _ in self.base.structure.entries(slices)]
        self.gram, squares = self.augmentation.completed(mean[:, order], factor[:, order], self.noises, self.generator)
        self.noises = self.augmentation.noises(squares, self.noises, self.generator)


def _likeliest(share: Tensor, after: list[int]) -> Pairs:
    """Edges whose shares exceed a half, the likeliest first, but for those that would close a circle."""
    count = len(after)
    before = {v: {u for u in range(count) if after[u] >> v & 1} for v in range(count)}
    found: Pairs = []
    for place in share.flatten().argsort(descending=True, stable=True).tolist():
        parent, child = divmod(place, share.shape[1])
        if float(share[parent, child]) <= 0.5:
            break
        if parent < count:
            before[child].add(parent)
            try:
                TopologicalSorter(before).prepare()
            except CycleError:
                before[child].remove(parent)
                continue
        found.append((parent, child))
    return found


def _named(template: Template, shares: list[Tensor]) -> pd.Series:
    """Shares with the names of parents and children, the likeliest first."""
    of_static, _, of_later = nodes(template)
    found = {}
    for parents, children, share in ((of_later, template.variables, 0), (of_static, template.static, 1)):
        for i, (name, lag) in enumerate(parents if share < len(shares) else ()):
            for j, child in enumerate(children):
                if lag or name != child:
                    found[f"{name}_before" if lag else name, child] = float(shares[share][i, j])
    index = pd.MultiIndex.from_tuples(list(found), names=["parent", "child"])
    return pd.Series(list(found.values()), index, name="probability").sort_values(ascending=False)
