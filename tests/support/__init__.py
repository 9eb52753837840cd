"""Shared test support: real servers and builders, one file a concern."""
