"""Edges of a template from rows: the best network, exactly, or the posterior of the edges given incomplete sources.

``learn`` takes complete weighted rows, real or distilled, and a score (``bge``, ``bdeu``, ``bic``); ``edges`` takes
sources that see different variables, with their noise. ``recovered`` compares edges found with true ones.
"""

from bayesdd.dbn.learning._edges import Edges as Edges
from bayesdd.dbn.learning._edges import edges as edges
from bayesdd.dbn.learning._to_dot import to_dot as to_dot
from bayesdd.dbn.learning.scores import bdeu as bdeu
from bayesdd.dbn.learning.scores import bge as bge
from bayesdd.dbn.learning.scores import bic as bic
from bayesdd.dbn.learning.search import learn as learn
from bayesdd.dbn.learning.search import recovered as recovered
