"""Differential equations as inference tasks.

``equation`` describes a family of equations with its domain, boundary values and exact solution. A target is a list of
three tasks over the weights of one network: measurements, the equation at collocation points, and boundary values.
"""

from bayesdd.pinn._target import boundary as boundary
from bayesdd.pinn._target import measurements as measurements
from bayesdd.pinn._target import residual as residual
from bayesdd.pinn._target import starts as starts
from bayesdd.pinn._target import surrogate as surrogate
from bayesdd.pinn._target import target as target
from bayesdd.pinn.equation import Family as Family
from bayesdd.pinn.equation import ends as ends
from bayesdd.pinn.equation import inputs as inputs
from bayesdd.pinn.equation import measured as measured
