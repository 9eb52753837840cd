"""Where pictures come from: the OpenAI Images API, or sketches drawn here when there is no key for it."""
