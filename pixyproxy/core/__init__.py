"""What every layer shares: settings, exceptions and models; no I/O and no framework."""
