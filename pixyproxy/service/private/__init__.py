"""Services that act for a principal: generation, management, keys and tenants."""
