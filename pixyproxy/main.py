"""The ASGI application, for ``uvicorn pixyproxy.main:app``, and its connections, for several workers."""

from pixyproxy.core.logs import configure_logging
from pixyproxy.core.settings import Settings
from pixyproxy.web.app import create_app
from pixyproxy.web.server import connections_of

settings = Settings()
configure_logging(log_format=settings.log_format, level=settings.log_level)
app = create_app(settings)
connections = connections_of(settings)
