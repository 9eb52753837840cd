"""Files that PixyProxy keeps: durable writes, the spool, and the store of pictures."""
