"""Published methods of coresets and dataset distillation, one a file, all ``(task, size, *, seed, ...) -> Distilled``.

Each works for any task by automatic differentiation, sums over rows (means would lose N and with it the width of the
posterior), and returns no certificate: ask ``bayesdd.certify``.
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
