"""ASGI middleware: what applies to every request before a route is known."""
