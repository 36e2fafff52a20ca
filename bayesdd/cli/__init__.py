"""The command line: ``bayesdd new | distill | certify | sample | report``."""
