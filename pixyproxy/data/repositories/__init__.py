"""Repositories: one module a table, with its columns and its SQL. Transactions belong to ``Database``."""
