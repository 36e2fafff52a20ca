"""One round of federation: three derivatives of each source's log-likelihood at a common point, which add up."""

from bayesdd.summaries._combine import combine as combine
from bayesdd.summaries._summary import summary as summary
from bayesdd.summaries.noun import Summary as Summary
