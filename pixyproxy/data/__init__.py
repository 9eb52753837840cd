"""Persistent storage: the database and the picture files."""
