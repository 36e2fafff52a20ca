"""Objectives that are no functional of the log-ratio: ``(reference) -> loss(rows, weight)``, nats.

What they need of the full posterior is computed once, when the loss is made.
"""

from bayesdd.matching.bilevel import bilevel as bilevel
from bayesdd.matching.draws_forward_kl import draws_forward_kl as draws_forward_kl
from bayesdd.matching.fisher import fisher as fisher
from bayesdd.matching.function_space import function_space as function_space
from bayesdd.matching.predictive_risk import predictive_risk as predictive_risk
