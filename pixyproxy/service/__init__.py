"""Services: ``public`` is read-only; ``private`` requires a principal."""
