"""Traces: the calls a product logged, as rows, cleaned, split and ready to become environments."""
