"""Resources that require a credential."""
