"""Tests of the upstreams."""
