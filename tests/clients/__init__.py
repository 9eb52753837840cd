"""Clients that others' tools generate from the OpenAPI document."""
