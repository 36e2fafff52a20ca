"""What several studies share: cells, tables, densities, true divergences, cases."""
