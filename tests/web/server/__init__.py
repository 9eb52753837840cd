"""Tests of ``pixyproxy.web.server.uvicorn_server``."""
