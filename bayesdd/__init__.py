"""bayesdd: Bayesian dataset distillation.

A Pyro model and its rows in; a few weighted synthetic rows with the same posterior, and a certificate in nats, out.
"""

import lazy_loader as _lazy

# What ``__init__.pyi`` names is imported on first use: torch and Pyro take two seconds, which --help need not wait for.
__getattr__, __dir__, __all__ = _lazy.attach_stub(__name__, __file__)
__version__ = "0.2.0"  # the one place: pyproject.toml reads it here
