"""Policies, which write the actions: engines around models, endpoints, and scripts for checks and baselines."""
