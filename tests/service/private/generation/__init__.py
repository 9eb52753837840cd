"""Tests of ``pixyproxy.service.private.generation``."""
