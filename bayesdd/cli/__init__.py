"""The command line: ``bayesdd distill | sample | certify``."""
