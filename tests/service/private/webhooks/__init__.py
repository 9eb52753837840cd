"""Tests of ``pixyproxy.service.private.webhooks.subscriptions``."""
