"""Inference methods, one a file, all ``(density, *, draws, chains, seed) -> Draws``."""

from bayesdd.inference.constrained import constrained as constrained
from bayesdd.inference.draws import Draws as Draws
from bayesdd.inference.gauss_newton import gauss_newton as gauss_newton
from bayesdd.inference.hmc import hmc as hmc
from bayesdd.inference.laplace import laplace as laplace
from bayesdd.inference.nuts import nuts as nuts
