"""A site whose server is killed again and again, clients who do not give up, and a witness of what was bought."""
