"""Tests of ``pixyproxy.data.files.store``."""
