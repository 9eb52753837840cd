"""Clients generated from the OpenAPI document by third-party tools."""
