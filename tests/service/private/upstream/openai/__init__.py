"""Tests of ``pixyproxy.service.private.upstream.openai``."""
