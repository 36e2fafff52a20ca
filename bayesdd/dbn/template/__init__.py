"""What a template network is: its variables, edges and states, and the sites, axes and columns that follow from them.

Nothing here computes a probability. The two families of conditional distributions differ in the shapes of their sites
and in what a column may hold (``kinds``); everything else about a template is common to both.
"""

from bayesdd.dbn.template.structure import Family as Family
from bayesdd.dbn.template.structure import Node as Node
from bayesdd.dbn.template.template import Template as Template
