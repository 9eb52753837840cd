"""Who is asking, and what they may do: keys, users, tenants, passwords. Tokens are in ``oauth``."""
