"""The posterior of edges, and searches for the best network."""
