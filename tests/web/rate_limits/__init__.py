"""Tests of ``pixyproxy.web.rate_limits``."""
