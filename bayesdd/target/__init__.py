"""What the synthetic rows must stand for: the target, its nuisances, particles, closed-form matching, the bound."""

from bayesdd.target.target import Target as Target
