"""Policies: what writes the actions. Engines around models, endpoints, and scripts for checks and baselines."""
