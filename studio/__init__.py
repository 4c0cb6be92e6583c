"""A local page over runs, evals, environments and rules, live and read-only."""
