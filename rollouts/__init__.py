"""Rollouts: episodes over an engine, here or in workers."""
