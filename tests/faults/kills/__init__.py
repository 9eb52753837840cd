"""A site whose server is killed again and again, clients that keep retrying, and a witness of all purchases."""
