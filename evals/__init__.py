"""Evals that gate: suites, runner, statistics, gates, reports."""
