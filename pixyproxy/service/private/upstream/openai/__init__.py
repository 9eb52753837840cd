"""The adapter to the OpenAI Images API: requests, streamed responses, errors and refusals."""
