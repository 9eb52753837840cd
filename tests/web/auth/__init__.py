"""Tests of credentials and policies over HTTP."""
