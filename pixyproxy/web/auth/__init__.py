"""Credentials to principals, and the policies that resources name in their signatures."""
