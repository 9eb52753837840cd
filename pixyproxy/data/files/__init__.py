"""File storage: durable writes, the spool and the picture store."""
