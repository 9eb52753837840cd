"""Tests of the public resources."""
