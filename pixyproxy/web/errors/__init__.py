"""Error handling: one handler that turns every exception into a response, and the response formats."""
