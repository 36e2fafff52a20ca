"""From a density to draws: one file a method, all ``(density, *, draws, chains, seed) -> Draws``.

``draws`` are kept of each chain. ``laplace``, ``hmc`` and ``nuts`` are for any posterior; ``gauss_newton`` and
``constrained`` for networks. Beside them stand searches for modes: ``mode`` for densities with a Laplace fit,
``network_modes`` for networks.
"""

from bayesdd.inference._constrained import constrained as constrained
from bayesdd.inference._gauss_newton import gauss_newton as gauss_newton
from bayesdd.inference._hmc import hmc as hmc
from bayesdd.inference._laplace import laplace as laplace
from bayesdd.inference._nuts import nuts as nuts
from bayesdd.inference.draws import Draws as Draws
