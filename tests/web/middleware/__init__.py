"""Tests of ``pixyproxy.web.middleware``."""
