"""Tests of ``pixyproxy.service.private.identity``."""
