"""Identity and permissions: API keys, users, tenants and passwords. Tokens are in ``oauth``."""
