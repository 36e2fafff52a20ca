"""Functionals of the log-ratio, one a file: ``(log_ratio (S,), log_weight (S,)) -> nats``."""

from bayesdd.objectives.forward_kl import forward_kl as forward_kl
from bayesdd.objectives.half_variance import half_variance as half_variance
from bayesdd.objectives.renyi import renyi as renyi
from bayesdd.objectives.reverse_kl import reverse_kl as reverse_kl
