"""The server process: uvicorn, connections, background loops and shutdown."""
