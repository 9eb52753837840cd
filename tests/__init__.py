"""The test suite of PixyProxy; it mirrors the folders of the package."""
