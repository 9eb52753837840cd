"""Sketches for the offline generator, drawn with Pillow from the words of a prompt."""
