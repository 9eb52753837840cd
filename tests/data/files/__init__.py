"""Tests of ``pixyproxy.data.files.durable``."""
