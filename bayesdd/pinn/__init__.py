"""Differential equations: problems written as mathematics, and surrogates that know them.

A :class:`Problem` is an equation with its conditions; :func:`fit` makes a :class:`Surrogate` of it and of measurements,
which predicts with intervals, infers unknown constants and functions, and teaches what it knows to plain networks by a
few rows.
"""

from bayesdd.pinn._fit import fit as fit
from bayesdd.pinn.files import load as load
from bayesdd.pinn.problem import Condition as Condition
from bayesdd.pinn.problem import Function as Function
from bayesdd.pinn.problem import Problem as Problem
from bayesdd.pinn.problem import at as at
from bayesdd.pinn.problem import function as function
from bayesdd.pinn.problem import periodic as periodic
from bayesdd.pinn.surrogate import FitWarning as FitWarning
from bayesdd.pinn.surrogate import Surrogate as Surrogate
