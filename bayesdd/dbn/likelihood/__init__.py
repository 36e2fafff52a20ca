"""The exact likelihood of sequences with gaps, and sources of them."""
