"""Read-only services; a principal is optional and widens what is seen."""
