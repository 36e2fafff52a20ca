"""One small table from several sources that see different variables."""
