"""Resources that need a credential."""
