"""HTTP: resources, authentication, errors, limits and the request log."""
