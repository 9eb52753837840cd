"""The frozen pydantic models that travel between the layers, one module an aggregate."""
