"""Webhooks: subscriptions, signed delivery, and HTTP requests guarded against SSRF."""
