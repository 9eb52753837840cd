"""Errors: one handler that turns every exception into an answer, and its dialects."""
