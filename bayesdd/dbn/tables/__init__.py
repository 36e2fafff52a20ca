"""Tables in: what sources hold, by name; long tables, units, states and scales on which several sources agree.

``named`` reads whatever holds columns, ``long`` a long table; ``agreement`` gives every source the same states and the
same scale; ``doubts`` warns of those that seem not to fit. ``bayesdd.data.sequences`` is the way out.
"""

from bayesdd.dbn.tables.agreement import Agreement as Agreement
from bayesdd.dbn.tables.agreement import agreed as agreed
from bayesdd.dbn.tables.doubts import doubts_about as doubts_about
from bayesdd.dbn.tables.long import LongTable as LongTable
from bayesdd.dbn.tables.long import read_long as read_long
from bayesdd.dbn.tables.named import Named as Named
from bayesdd.dbn.tables.named import read_named as read_named
