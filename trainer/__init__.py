"""The run: config, algorithms, loop, checkpoints, gatekeeper."""
