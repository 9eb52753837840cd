"""Tests of ``pixyproxy.web.errors.handler``."""
