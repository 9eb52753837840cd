"""The offline generator: sketches drawn with Pillow from the words of a prompt."""
