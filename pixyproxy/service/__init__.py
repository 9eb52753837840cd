"""What PixyProxy does: ``public`` reads, ``private`` needs a principal."""
