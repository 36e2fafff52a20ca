"""Template networks as densities of rows: exact log-likelihoods with anything missing, Pyro tasks, simulated rows.

A file for each algorithm (``gaussian``, ``missing``; ``categorical``, ``elimination``, ``messages``; ``ancestral``);
``densities`` says which of them serves which template and rows. ``source`` joins several holders of rows.
"""

from bayesdd.dbn.likelihood.model import model_of as model_of
from bayesdd.dbn.likelihood.model import task as task
from bayesdd.dbn.likelihood.parameters import log_likelihood as log_likelihood
from bayesdd.dbn.likelihood.parameters import simulate as simulate
from bayesdd.dbn.likelihood.parameters import unconstrain as unconstrain
from bayesdd.dbn.likelihood.source import Source as Source
from bayesdd.dbn.likelihood.source import standardise as standardise
from bayesdd.dbn.likelihood.tasks import student as student
from bayesdd.dbn.likelihood.tasks import target as target
