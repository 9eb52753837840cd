"""Sources of pictures: the OpenAI Images API, or offline sketches when no key is set."""
