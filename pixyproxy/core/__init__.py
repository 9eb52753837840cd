"""Settings, exceptions and models shared by every layer; no I/O and no framework."""
