"""The picture store."""
