"""Unexpected exceptions: a 500 without details, and a single log line with all details."""

import io
import logging
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from starlette.responses import StreamingResponse

from pixyproxy.core.exceptions import PixyProxyException
from pixyproxy.core.logs import RequestContextFilter, TextFormatter
from pixyproxy.web.app import create_app
from tests.support.problems import assert_problem
from tests.support.server import make_settings

SECRET = "what only the log may say"


class UnforeseenError(Exception):
    """An exception class without a handler."""


class UnmappedException(PixyProxyException):
    """A core exception without a status in the table."""


async def explode() -> None:
    """Raise an exception that no handler knows."""
    message = f"{SECRET}\r\n2026-11-21 09:15:02,123 INFO forged"
    raise UnforeseenError(message)


async def forget() -> None:
    """Raise an exception that the status table lacks."""
    raise UnmappedException(SECRET)


async def break_off() -> StreamingResponse:
    """Raise after the response has started."""

    async def begin() -> AsyncIterator[bytes]:
        yield b"begun"
        raise UnforeseenError(SECRET)

    return StreamingResponse(begin())


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """Yield the application's log in the format of a server."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(TextFormatter())
    handler.addFilter(RequestContextFilter())
    logger = logging.getLogger("pixyproxy")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield stream
    logger.removeHandler(handler)
    logger.setLevel(level)


@pytest.fixture
def exploding(tmp_path: Path, log: io.StringIO) -> Iterator[TestClient]:
    """Yield a client of an application with failing routes."""
    app = create_app(make_settings(tmp_path))
    app.get("/explode")(explode)
    app.get("/forget")(forget)
    app.get("/break-off")(break_off)
    with TestClient(app) as client:
        log.truncate(0)
        log.seek(0)
        yield client


@pytest.mark.parametrize("path", ["/explode", "/forget"])
def test_unexpected_error_is_a_problem_without_details(path: str, exploding: TestClient) -> None:
    answer = exploding.get(path)
    assert_problem(answer, 500, "internal_error")
    assert SECRET not in answer.text
    assert "Exception" not in answer.text


def test_unexpected_error_is_logged_with_traceback_in_one_line(exploding: TestClient, log: io.StringIO) -> None:
    request_id = exploding.get("/explode").json()["request_id"]
    start, failure, end = log.getvalue().splitlines()
    assert start.endswith("REQUEST START")
    assert end.endswith("REQUEST END")
    assert all(f" {request_id} " in line for line in (start, failure, end))
    assert "ERROR" in failure
    assert "Traceback (most recent call last)" in failure
    assert "UnforeseenError" in failure
    assert SECRET in failure


def test_aborted_response_is_logged_and_ended(exploding: TestClient, log: io.StringIO) -> None:
    exploding.get("/break-off")
    lines = log.getvalue().splitlines()
    assert [line.rpartition("] ")[2] for line in (lines[0], lines[-1])] == ["REQUEST START", "REQUEST END"]
    assert len(lines) == 3
    assert "the response was aborted by an unexpected error" in lines[1]
    assert "UnforeseenError" in lines[1]


def test_server_continues_after_unexpected_error(exploding: TestClient) -> None:
    exploding.get("/explode")
    assert exploding.get("/healthz").json() == {"status": "ok"}
