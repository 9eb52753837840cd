"""The adapter to the OpenAI Images API: requests, answers as they arrive, errors and refusals."""
