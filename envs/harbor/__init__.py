"""Task folders in Harbor's form, terminal-bench's among them, played in a sandbox."""
