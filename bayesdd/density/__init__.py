"""Sums over rows: the prior plus weighted log-likelihoods, in passes over memory, disk and ranks."""

from bayesdd.density.density import Density as Density
