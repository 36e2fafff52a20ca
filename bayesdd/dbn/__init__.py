r"""Template dynamic Bayesian network: named variables over T slices, parameters tied over time.

Edges within a slice (intra) and from one slice to the next (inter); static variables have one value a sequence and may
be parents in every slice. The first slice has parameters of its own, later slices share theirs. For a variable v with
parents pa, linear-Gaussian or categorical:

.. math::
    \sigma_v^2 \sim \mathrm{InverseGamma}(a, b), \quad \beta_v \mid \sigma_v^2 \sim N(0, \sigma_v^2 s^2 I), \quad
    x_v \mid pa \sim N(\beta_{v0} + \beta_v^\top pa, \sigma_v^2); \\
    \theta_v \mid pa \sim \mathrm{Dirichlet}(\alpha, \dots, \alpha), \qquad x_v \mid pa \sim \theta_v.

Linear-Gaussian variables are standardised: a residual variance has prior mean b / (a - 1) = 1, the variable's own, and
a coefficient's prior deviation is s = 3 residual deviations, what a parent that alone explains 90% of the variance has.
A pseudo-count of 1 is a uniform prior on the tables. A linear-Gaussian variable may have categorical parents, of which
each state but the first has a coefficient; a categorical variable with linear-Gaussian parents is a series of probits,
one a step from a state to those beyond, and a terminal one ends the course: a discrete hazard. Missing entries are
integrated out exactly; sequences of unequal length are padded by NaN. Measurement noise of known or unknown deviation
may lie on every entry that is seen.

A :class:`Template` says what a network is; what one does with it are functions: ``task``, ``target`` of several sources
and ``student`` for bayesdd; ``simulate`` and ``log_likelihood`` of rows; ``conjugate``, ``gibbs`` and ``pooled``
posteriors; ``merge`` and ``federated`` for small tables; ``learn`` and ``edges`` for unknown edges. Long tables come in
by ``Source.from_long`` and go out by ``to_long``; ``standardise`` gives sources one scale. A sub-room imports earlier
ones only: ``template``, ``tables``, ``likelihood``, ``inference``, then ``learning`` and ``merging`` side by side.
"""

from bayesdd.dbn.inference import conjugate as conjugate
from bayesdd.dbn.inference import cpds as cpds
from bayesdd.dbn.inference import gibbs as gibbs
from bayesdd.dbn.inference import pooled as pooled
from bayesdd.dbn.inference import to_bif as to_bif
from bayesdd.dbn.learning import edges as edges
from bayesdd.dbn.learning import learn as learn
from bayesdd.dbn.learning import to_dot as to_dot
from bayesdd.dbn.likelihood import Source as Source
from bayesdd.dbn.likelihood import log_likelihood as log_likelihood
from bayesdd.dbn.likelihood import simulate as simulate
from bayesdd.dbn.likelihood import standardise as standardise
from bayesdd.dbn.likelihood import student as student
from bayesdd.dbn.likelihood import target as target
from bayesdd.dbn.likelihood import task as task
from bayesdd.dbn.merging import federated as federated
from bayesdd.dbn.merging import harden as harden
from bayesdd.dbn.merging import merge as merge
from bayesdd.dbn.merging import overstated as overstated
from bayesdd.dbn.template import Template as Template
