"""The OpenAI-compatible API under ``/v1``, for OpenAI SDKs with a PixyProxy key."""
