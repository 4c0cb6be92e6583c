"""Serving: a model behind an OpenAI-compatible endpoint that records its answers and feedback on them."""
