"""Log records: one line each, in the required format, with the id of their request.

    2026-11-21 09:15:02,123 INFO web1-20261121T091502.123456-14023 [14023] [create_image:41] REQUEST START

Times are UTC. No character of a message can start a new line or control a terminal.
"""

import json
import logging
import re
import threading
import time
from contextvars import ContextVar
from logging.config import dictConfig
from typing import Literal

current_request_id: ContextVar[str] = ContextVar("current_request_id", default="-")
current_client_address: ContextVar[str | None] = ContextVar("current_client_address", default=None)
"""None outside a request."""

FORMAT = "%(asctime)s %(levelname)s %(request_id)s [%(native_thread_id)d] [%(funcName)s:%(lineno)d] %(message)s"
UNSAFE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters, Unicode's line and paragraph separators, its bidirectional controls, lone surrogates."""


class RequestContextFilter(logging.Filter):
    """Add the request id and the operating system's thread id to every record."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Return True: no record is dropped."""
        record.request_id = current_request_id.get()
        record.native_thread_id = threading.get_native_id()
        return True


class TextFormatter(logging.Formatter):
    """Format a record as one line of text; a traceback is included with its line ends escaped."""

    converter = staticmethod(time.gmtime)

    def __init__(self) -> None:
        super().__init__(FORMAT)

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line."""
        return escape(super().format(record))


class JsonFormatter(logging.Formatter):
    """Format a record as one line of JSON with the same fields as the text format."""

    converter = staticmethod(time.gmtime)

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line."""
        fields = {
            "time": self.formatTime(record),
            "level": record.levelname,
            "request_id": record.__dict__["request_id"],
            "thread_id": record.__dict__["native_thread_id"],
            "function": record.funcName,
            "line": record.lineno,
            "message": record.getMessage(),
        }
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return json.dumps(fields)


def escape(text: str) -> str:
    """Return the text with every character that could break out of its line as a Python escape."""
    return UNSAFE.sub(lambda match: match[0].encode("unicode_escape", "surrogatepass").decode("ascii"), text)


def configure_logging(*, log_format: Literal["text", "json"], level: str) -> None:
    """Send the records of PixyProxy and its libraries to standard error, all in one format."""
    formatter = TextFormatter if log_format == "text" else JsonFormatter
    dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "filters": {"request": {"()": RequestContextFilter}},
            "formatters": {"line": {"()": formatter}},
            "handlers": {
                "stderr": {"class": "logging.StreamHandler", "formatter": "line", "filters": ["request"]},
            },
            "root": {"level": "WARNING", "handlers": ["stderr"]},
            "loggers": {"pixyproxy": {"level": level}, "uvicorn.error": {"level": "INFO"}},
        }
    )
