"""Tests of what PixyProxy keeps."""
