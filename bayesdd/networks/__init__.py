"""Neural networks as Pyro models: what they predict, students, the predictive objective and its certificate."""

from bayesdd.networks._function_space import function_space as function_space
