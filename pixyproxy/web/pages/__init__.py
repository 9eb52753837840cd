"""HTML pages, CSS and ES modules, without a build step."""
