"""Posteriors of a template's parameters: in closed form, by Gibbs sampling, and of several sources together.

``conjugate`` serves complete weighted rows; ``gibbs`` categorical rows with missing entries; ``pooled`` sources that
see different variables, with their noise (``drawing``). ``predictive`` scores rows under draws, a ``Prediction`` what
they say of patients; ``inference_data`` and ``labelled`` name draws for ArviZ, ``cpds`` and ``to_bif`` hand
the network over to other packages.
"""

from bayesdd.dbn.inference._conjugate import Dirichlet as Dirichlet
from bayesdd.dbn.inference._conjugate import NormalInverseGamma as NormalInverseGamma
from bayesdd.dbn.inference._conjugate import Posterior as Posterior
from bayesdd.dbn.inference._conjugate import conjugate as conjugate
from bayesdd.dbn.inference._cpds import cpds as cpds
from bayesdd.dbn.inference._cpds import to_bif as to_bif
from bayesdd.dbn.inference._gibbs import gibbs as gibbs
from bayesdd.dbn.inference.arviz import inference_data as inference_data
from bayesdd.dbn.inference.arviz import labelled as labelled
from bayesdd.dbn.inference.pooling import Pooled as Pooled
from bayesdd.dbn.inference.pooling import pooled as pooled
from bayesdd.dbn.inference.pooling import predictive as predictive
from bayesdd.dbn.inference.prediction import Prediction as Prediction
