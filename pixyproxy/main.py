"""The ASGI application, for ``uvicorn pixyproxy.main:app`` and other servers."""

from pixyproxy.core.logs import configure_logging
from pixyproxy.core.settings import Settings
from pixyproxy.web.app import create_app

settings = Settings.from_environment()
configure_logging(log_format=settings.log_format, level=settings.log_level)
app = create_app(settings)
