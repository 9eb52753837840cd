"""Tests of ``pixyproxy.service.private.billing``."""
