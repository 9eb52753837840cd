"""What PixyProxy keeps: the database and the pictures."""
