"""A Pyro model with its rows: engine, contract and its refusals, kinds, provenance.

The only room that knows Pyro's handlers; other rooms use them through its files.
"""

from bayesdd.task.censoring import censored as censored
from bayesdd.task.task import Task as Task
