"""Tests of ``pixyproxy.web.protocol``."""
