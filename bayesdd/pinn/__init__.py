"""Differential equations as inference tasks: an equation, its conditions, the target of three tasks."""

from bayesdd.pinn._target import boundary as boundary
from bayesdd.pinn._target import measurements as measurements
from bayesdd.pinn._target import residual as residual
from bayesdd.pinn._target import starts as starts
from bayesdd.pinn._target import surrogate as surrogate
from bayesdd.pinn._target import target as target
