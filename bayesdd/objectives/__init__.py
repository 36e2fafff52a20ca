"""What is minimised, one file each.

Functionals of the log-ratio: ``(log_ratio (S,), log_weight (S,)) -> nats``. Matching objectives of rows and draws:
``(reference) -> loss(rows, weight)``, nats, differentiable in both, what they need of the full posterior computed once.
``sorts`` tells them apart.
"""

from bayesdd.objectives._bilevel import bilevel as bilevel
from bayesdd.objectives._draws_forward_kl import draws_forward_kl as draws_forward_kl
from bayesdd.objectives._fisher import fisher as fisher
from bayesdd.objectives._forward_kl import forward_kl as forward_kl
from bayesdd.objectives._half_variance import half_variance as half_variance
from bayesdd.objectives._predictive_risk import predictive_risk as predictive_risk
from bayesdd.objectives._renyi import renyi as renyi
from bayesdd.objectives._reverse_kl import reverse_kl as reverse_kl
