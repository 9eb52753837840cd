"""The process around the application: uvicorn, connections, background loops and shutdown."""
