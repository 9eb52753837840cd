"""The test suite of PixyProxy. It mirrors the folders of the package."""
