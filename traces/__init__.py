"""Traces: the calls a product logged, as clean rows, ready to become environments."""
