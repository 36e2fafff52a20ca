"""One small table from several sources that see different variables.

``merge`` distils the joint posterior of the sources into a few weighted rows, with the sources' gaps (``masked``;
``coreset`` for categories) or complete (``complete``; ``soft`` for categories, which ``harden`` makes hard);
``overstated`` says what complete rows claim beyond the sources. ``federated`` does it where rows may not be shared.
"""

from bayesdd.dbn.merging._federated import federated as federated
from bayesdd.dbn.merging._federated import united_draws as united_draws
from bayesdd.dbn.merging._merge import merge as merge
from bayesdd.dbn.merging._merge import overstated as overstated
from bayesdd.dbn.merging.hardening import harden as harden
