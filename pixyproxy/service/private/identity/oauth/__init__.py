"""Tokens (OAuth 2, JWT): issue, verify and revoke them; signing keys; trusted issuers."""
