"""Serving: a model behind an OpenAI-compatible endpoint that keeps what it answered, and what people said of
it."""
