"""Pages for people: HTML, CSS and ES modules, without a build step."""
