"""Read-only services; an optional principal makes its tenant's private images visible too."""
