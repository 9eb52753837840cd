"""Tests of the picture store."""
