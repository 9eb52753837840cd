"""The OpenAI-compatible surface under ``/v1``: any OpenAI SDK with a PixyProxy key."""
