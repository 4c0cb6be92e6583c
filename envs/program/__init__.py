"""Programs as policies: a command that owns its loop, and asks the model over the chat API."""
