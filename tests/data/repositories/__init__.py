"""Tests of ``pixyproxy.data.repositories``."""
