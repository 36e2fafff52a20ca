"""Draws to ArviZ: posteriors and predictions in named groups, and their files."""

from bayesdd.posterior._log_likelihood import log_likelihood as log_likelihood
from bayesdd.posterior.arviz import read as read
from bayesdd.posterior.arviz import write as write
from bayesdd.posterior.convergence import ConvergenceWarning as ConvergenceWarning
from bayesdd.posterior.sampling import predict as predict
from bayesdd.posterior.sampling import sample as sample
from bayesdd.posterior.sampling import weighted as weighted
