"""Tests of the private resources."""
