"""The OpenAI-compatible API, tested with the official SDK."""
