"""Credentials, principals, and the policies that resources declare in their signatures."""
