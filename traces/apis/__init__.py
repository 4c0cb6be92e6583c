"""The chat APIs whose responses are read, a module each; a new one is its module and its line in
`registry.py`."""
