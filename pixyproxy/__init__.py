"""PixyProxy: a self-hosted, multi-tenant image-generation proxy that keeps what it paid for."""
