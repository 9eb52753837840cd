"""HTTP: resources, authentication, errors, rate limits and the request log."""
