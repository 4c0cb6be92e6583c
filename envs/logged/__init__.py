"""Environments over imported traces: classify, extract, rewrite, cite, accepted outcomes."""
