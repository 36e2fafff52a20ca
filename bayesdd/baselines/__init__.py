"""Published methods of coresets and dataset distillation, one a file, all ``(task, size, *, seed, ...) -> Distilled``.

Each works for any task by automatic differentiation, sums over rows (means would lose N and with it the width of the
posterior), and returns no certificate: ask ``bayesdd.certify``.

Arguments mean the same in all of them, and a method documents only what is its own:

* ``task``: the task, all its rows in memory.
* ``size``: number M of rows, between 1 and N; fewer come back where rows are drawn twice or weights end at zero.
* ``seed``: seed of all random numbers.
* ``particles``: number S of draws from a Laplace fit, of the full posterior or of that of the current rows, at each
  gradient. ``draws``: unconstrained draws ``(S, P)`` of your own in place of those from the full posterior.
* ``iterations``, ``rate``: steps of Adam, and the first step size, in whitened coordinates of the rows (and in logs of
  learned step sizes); it decays to zero as a cosine.
* ``batch``: real rows a step, drawn with replacement; None for all.
* ``hold_labels``: whether labels stay as they are. ``learn_weights``: whether weights move too; otherwise they are
  N / M each, or, where rows cannot leave their stratum, its share of N.

All raise ``ValueError`` where ``size`` is not between 1 and N, the rows are on disk, a Laplace fit does not exist, no
weight is positive or no gradient finite, and warn (``CertificateWarning``) where no M rows can come close.

Reverse KL between Laplace fits on a logistic regression (ds1, N = 24,060, P = 11), nats, median or range of seeds 0-2::

                                                      M = 22        M = 50      M = 100   seconds
    uniform                                           10,200        17,500        9,900
    giga                                                               315           73
    giga, particles=2000                                               164           40
    giga, refit                                                         35          4.7
    iht                                                                 38           20   4
    iht, step=1                                                         66           18
    iht, iterations=1000, tolerance=1e-7                                22           13   14
    sparse_vi                                    1,054-1,655       258-377                5-13
    sparse_vi, step=10                               505-640            45
    psvi                                           858-2,304     552-2,315    245-1,108   2
    psvi, step=0.1                                             2,085-9,647     54-2,976
    quasi_newton                                 6,139-7,720 7,054-125,300 3,266-20,500   2-4
    coreset_mcmc                                6,850-33,160     9.6-6,308       2.4-11   13-15
    coreset_mcmc, stratified=False                            6,993-16,640
    kernel_ridge                                         593           366                1
    kernel_ridge, arc_cosine, hold_labels              3,500         8,300
    distribution_matching                             43,000            58                1.5
    distribution_matching, batch=256                  33,000           245
    unrolling                                            414           452                6.5
    unrolling, hold_labels                            11,100        15,500
    trajectory_matching                                   34            12                3.5
    trajectory_matching, hold_labels, batch=256        1,650            74
    gradient_matching                                    2.4          0.83                8
    gradient_matching, squared_norm                       37           2.4
    gradient_matching, cosine                            9.8           1.5
    gradient_matching, cosine, batch=256                  30           4.8
"""

from bayesdd.baselines._coreset_mcmc import coreset_mcmc as coreset_mcmc
from bayesdd.baselines._distribution_matching import distribution_matching as distribution_matching
from bayesdd.baselines._giga import giga as giga
from bayesdd.baselines._gradient_matching import gradient_matching as gradient_matching
from bayesdd.baselines._iht import iht as iht
from bayesdd.baselines._kernel_ridge import kernel_ridge as kernel_ridge
from bayesdd.baselines._kmeans import kmeans as kmeans
from bayesdd.baselines._leverage import leverage as leverage
from bayesdd.baselines._psvi import psvi as psvi
from bayesdd.baselines._quasi_newton import quasi_newton as quasi_newton
from bayesdd.baselines._sparse_vi import sparse_vi as sparse_vi
from bayesdd.baselines._stratified import stratified as stratified
from bayesdd.baselines._trajectory_matching import trajectory_matching as trajectory_matching
from bayesdd.baselines._uniform import uniform as uniform
from bayesdd.baselines._unrolling import unrolling as unrolling
