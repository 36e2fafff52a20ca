"""Pure tensors, nothing Bayesian: optimisers, Levenberg-Marquardt, Newton-CG, Pareto k-hat, Gaussians, devices."""

from bayesdd.numerics.devices import resolve as resolve
from bayesdd.numerics.gaussian import Gaussian as Gaussian
from bayesdd.numerics.levenberg_marquardt import least_squares as least_squares
from bayesdd.numerics.optimise import lbfgs as lbfgs
from bayesdd.numerics.pareto import khat as khat
from bayesdd.numerics.refusal import Refusal as Refusal
