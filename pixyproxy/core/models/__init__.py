"""Frozen pydantic models passed between the layers, one module per aggregate."""
