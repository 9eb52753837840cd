"""Shared test support: real servers and builders, one file per concern."""
