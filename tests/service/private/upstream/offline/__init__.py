"""Tests of ``pixyproxy.service.private.upstream.offline.generator``."""
