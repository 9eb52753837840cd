"""Log records: one line each, in the required format, whatever a message contains."""

import io
import json
import logging
import os
import re
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator

import pytest

from pixyproxy.core.logs import (
    JsonFormatter,
    RequestContextFilter,
    TextFormatter,
    current_request_id,
    escape,
)

REQUEST_ID = "web1-20261121T091502.123456-14023"
LINE = re.compile(
    r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} (?P<level>DEBUG|INFO|WARNING|ERROR|CRITICAL) "
    r"(?P<request_id>\S+) \[(?P<thread>\d+)\] \[(?P<function>\w+):(?P<line>\d+)\] (?P<message>.*)\n"
)
BREAKERS = [
    "\r\n", "\n", "\r", "\v", "\f", "\x1c", "\x1d", "\x1e", "\x85", "\u2028", "\u2029",
    "\x1b[2J", "\x9b2J", "\0", "\x7f", "\u202e", "\u2066", "\ud800", "\udfff",
]  # fmt: skip


@pytest.fixture
def request_id() -> Iterator[str]:
    """Set the current request id."""
    token = current_request_id.set(REQUEST_ID)
    yield REQUEST_ID
    current_request_id.reset(token)


def _logger(formatter: logging.Formatter) -> tuple[logging.Logger, io.StringIO]:
    """Return a new logger and its output stream."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(formatter)
    handler.addFilter(RequestContextFilter())
    logger = logging.getLogger(f"test.{uuid.uuid4()}")
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    logger.addHandler(handler)
    return logger, stream


def test_text_line_has_the_required_format(request_id: str) -> None:
    logger, stream = _logger(TextFormatter())
    logger.info("REQUEST %s", "START")
    match = LINE.fullmatch(stream.getvalue())
    assert match is not None
    assert (match["level"], match["request_id"], match["message"]) == ("INFO", request_id, "REQUEST START")
    assert match["thread"] == str(threading.get_native_id())
    assert match["function"] == "test_text_line_has_the_required_format"
    assert int(match["line"]) > 0


def test_line_outside_a_request_has_a_dash_as_id() -> None:
    logger, stream = _logger(TextFormatter())
    logger.warning("x")
    match = LINE.fullmatch(stream.getvalue())
    assert match is not None
    assert match["request_id"] == "-"


@pytest.mark.parametrize("formatter", [TextFormatter, JsonFormatter])
def test_times_are_utc(formatter: type[logging.Formatter]) -> None:
    record = logging.makeLogRecord({"created": 0.0, "msecs": 7.0, "msg": "x", "levelname": "INFO"})
    RequestContextFilter().filter(record)
    assert "1970-01-01 00:00:00,007" in formatter().format(record)


@pytest.mark.parametrize("breaker", BREAKERS, ids=ascii)
@pytest.mark.parametrize("formatter", [TextFormatter, JsonFormatter])
def test_message_cannot_start_a_second_line(formatter: type[logging.Formatter], breaker: str, request_id: str) -> None:
    logger, stream = _logger(formatter())
    logger.info("prompt %s", f"a{breaker}2026-11-21 09:15:02,123 INFO forged")
    written = stream.getvalue()
    assert len(written.splitlines()) == 1
    assert breaker not in written.removesuffix("\n")
    assert request_id in written
    assert "forged" in written
    written.encode("utf-8")


@pytest.mark.parametrize("breaker", BREAKERS, ids=ascii)
def test_json_preserves_every_character(breaker: str) -> None:
    logger, stream = _logger(JsonFormatter())
    logger.info("a%sb 🦊", breaker)
    assert json.loads(stream.getvalue())["message"] == f"a{breaker}b 🦊"


def test_json_line_has_the_fields_of_a_text_line(request_id: str) -> None:
    logger, stream = _logger(JsonFormatter())
    logger.error("it is %d", 5)
    fields = json.loads(stream.getvalue())
    assert set(fields) == {"time", "level", "request_id", "thread_id", "function", "line", "message"}
    text = "{time} {level} {request_id} [{thread_id}] [{function}:{line}] {message}\n".format(**fields)
    match = LINE.fullmatch(text)
    assert match is not None
    assert (match["level"], match["request_id"], match["message"]) == ("ERROR", request_id, "it is 5")
    assert match["thread"] == str(threading.get_native_id())


def _fail() -> None:
    message = "two\nlines\u2028"
    raise LookupError(message)


@pytest.mark.parametrize("formatter", [TextFormatter, JsonFormatter])
def test_traceback_stays_on_one_line(formatter: type[logging.Formatter]) -> None:
    logger, stream = _logger(formatter())
    try:
        _fail()
    except LookupError:
        logger.exception("it failed")
    written = stream.getvalue()
    assert len(written.splitlines()) == 1
    assert "Traceback (most recent call last):" in written
    assert "LookupError: two" in written


def test_text_of_any_language_is_unchanged() -> None:
    text = "naïve 🦊 雪 Ω עברית \\n"
    assert escape(text) == text


def test_unsafe_characters_are_escaped_in_ascii() -> None:
    assert escape("\r\n\x1b[2J\u2028\ud800") == r"\r\n\x1b[2J\u2028\ud800"


def _written(log_format: str) -> list[str]:
    """Return the lines logged by PixyProxy and libraries in a separate process, because logging is global."""
    script = (
        "import logging\n"
        "from pixyproxy.core.logs import configure_logging\n"
        f"configure_logging(log_format={log_format!r}, level='INFO')\n"
        "def write():\n"
        "    logging.getLogger('pixyproxy.x').info('ours')\n"
        "    logging.getLogger('pixyproxy.x').debug('too little')\n"
        "    logging.getLogger('uvicorn.error').info('theirs')\n"
        "    logging.getLogger('some.library').info('too little')\n"
        "    logging.getLogger('some.library').warning('odd\\nwarning')\n"
        "write()\n"
    )
    done = subprocess.run([sys.executable, "-c", script], env=os.environ, capture_output=True, text=True, check=True)
    assert done.stdout == ""
    return done.stderr.splitlines(keepends=True)


def test_pixyproxy_and_libraries_log_json() -> None:
    messages = [json.loads(line)["message"] for line in _written("json")]
    assert messages == ["ours", "theirs", "odd\nwarning"]


def test_pixyproxy_and_libraries_log_text() -> None:
    messages = [match["message"] if (match := LINE.fullmatch(line)) else line for line in _written("text")]
    assert messages == ["ours", "theirs", r"odd\nwarning"]
