"""Tests of the private services."""
