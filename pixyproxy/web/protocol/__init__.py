"""HTTP conventions that resources share: conditional requests, server-sent events, preferences."""
