"""Decision models: read, run, analyse, sample."""
