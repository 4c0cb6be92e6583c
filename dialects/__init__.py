"""Chat APIs on the wire: OpenAI's chat completions and responses, and Anthropic's messages."""
