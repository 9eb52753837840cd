"""Tests of what every layer shares."""
