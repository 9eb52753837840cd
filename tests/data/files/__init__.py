"""Tests of ``pixyproxy.data.files``."""
