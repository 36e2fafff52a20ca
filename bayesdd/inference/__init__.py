"""Density to draws: inference methods, one a file, all ``(density, *, draws, chains, seed) -> Draws``."""

from bayesdd.inference._constrained import constrained as constrained
from bayesdd.inference._gauss_newton import gauss_newton as gauss_newton
from bayesdd.inference._hmc import hmc as hmc
from bayesdd.inference._laplace import laplace as laplace
from bayesdd.inference._nuts import nuts as nuts
from bayesdd.inference.draws import Draws as Draws
