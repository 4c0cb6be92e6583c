"""Training: advantages, losses, the loop, checkpoints, runs."""
