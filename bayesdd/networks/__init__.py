"""Neural networks as Pyro models: the networks, what they predict, and distillation of their predictions.

``mlp`` is a fully connected network in Pyro statements and ``bnn`` a regression with it; ``functions`` judges draws by
what they predict. ``function_space`` is an objective of ``distill`` that matches predictions over a purpose, inputs
that are declared beforehand: students are fitted to the rows as these move (``students``, ``row_search``,
``calibration``), and the certificate is in the target's predictive standard deviations.
"""

from bayesdd.networks._function_space import function_space as function_space
from bayesdd.networks.bnn import student as student
from bayesdd.networks.functions import coverage as coverage
from bayesdd.networks.functions import values as values
from bayesdd.networks.mlp import Network as Network
from bayesdd.networks.purpose import Purpose as Purpose
from bayesdd.networks.purpose import purpose_of as purpose_of
from bayesdd.networks.regression import Regression as Regression
