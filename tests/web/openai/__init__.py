"""The OpenAI-compatible surface, as the official SDK sees it."""
