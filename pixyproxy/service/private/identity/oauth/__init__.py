"""Tokens (OAuth 2, JWT): issuing, verifying and revoking them, the keys that sign them, and other issuers."""
