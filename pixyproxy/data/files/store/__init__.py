"""Where the picture files are."""
