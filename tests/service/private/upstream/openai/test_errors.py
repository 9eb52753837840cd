"""Every SDK error maps to an exception."""

import inspect

import httpx2
import openai
import pytest

from pixyproxy.core.exceptions import (
    ImageGenerationException,
    PromptRefusedException,
    UpstreamBusyException,
    UpstreamErrorException,
    UpstreamSilentException,
    UpstreamTimeoutException,
    UpstreamUnreachableException,
)
from pixyproxy.service.private.upstream.openai.errors import NOTHING_SENT, RAISED, as_core_exception

REQUEST = httpx2.Request("POST", "http://upstream.invalid/v1/images/generations")


def _all_subclasses(kind: type[Exception]) -> set[type[Exception]]:
    direct = {sub for sub in kind.__subclasses__() if sub.__module__.startswith(("openai", "httpx2"))}
    return direct.union(*(_all_subclasses(sub) for sub in direct))


def _build(kind: type[Exception]) -> Exception:
    """Return an instance, made with the arguments of its class."""
    given = {
        "message": "words",
        "request": REQUEST,
        "response": httpx2.Response(400, request=REQUEST),
        "body": None,
    }
    names = inspect.signature(kind.__init__).parameters
    try:
        return kind(**{name: value for name, value in given.items() if name in names})
    except TypeError:
        error = kind.__new__(kind)
        Exception.__init__(error, "words")
        return error


SDK_ERRORS = sorted(_all_subclasses(openai.OpenAIError) | {openai.OpenAIError}, key=lambda kind: kind.__name__)


@pytest.mark.parametrize("kind", SDK_ERRORS)
def test_every_sdk_error_maps_to_a_generation_exception(kind: type[Exception]) -> None:
    meant = as_core_exception(_build(kind))
    assert isinstance(meant, ImageGenerationException)
    assert "words" not in str(meant)


HTTP_ERRORS = sorted(_all_subclasses(httpx2.HTTPError) | {httpx2.HTTPError}, key=lambda kind: kind.__name__)


@pytest.mark.parametrize("kind", HTTP_ERRORS)
def test_broken_response_is_silent(kind: type[httpx2.HTTPError]) -> None:
    assert issubclass(kind, RAISED)
    error = kind.__new__(kind)
    Exception.__init__(error, "words")
    meant = as_core_exception(error)
    assert isinstance(meant, UpstreamSilentException)
    assert isinstance(meant, UpstreamTimeoutException) == issubclass(kind, httpx2.TimeoutException)


def test_own_deadline_is_a_timeout() -> None:
    assert type(as_core_exception(TimeoutError())) is UpstreamTimeoutException


@pytest.mark.parametrize("cause", NOTHING_SENT)
def test_unsent_request_is_unreachable(cause: type[Exception]) -> None:
    error = openai.APIConnectionError(request=REQUEST)
    error.__cause__ = cause("x")
    assert type(as_core_exception(error)) is UpstreamUnreachableException


@pytest.mark.parametrize(
    "cause", [httpx2.ReadError("x"), httpx2.RemoteProtocolError("x"), httpx2.WriteError("x"), None]
)
def test_possibly_sent_request_is_silent(cause: Exception | None) -> None:
    error = openai.APIConnectionError(request=REQUEST)
    error.__cause__ = cause
    assert type(as_core_exception(error)) is UpstreamSilentException


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b'{"error": {"message": "failed"}}', UpstreamErrorException),
        (b'{"error": "Content violates usage guidelines.", "code": "x y"}', PromptRefusedException),
        (b'{"error": {"message": "\\ud800"}}', UpstreamSilentException),
        (b"{}", UpstreamSilentException),
        (b"", UpstreamSilentException),
        (b"<html>", UpstreamSilentException),
        (b"[" * 100_000, UpstreamSilentException),
    ],
)
def test_whole_body_is_classified(content: bytes, expected: type[Exception]) -> None:
    status = 403 if expected is PromptRefusedException else 500
    response = httpx2.Response(status, request=REQUEST, content=content)
    assert type(as_core_exception(openai.APIStatusError("words", response=response, body="other"))) is expected


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("7", 7), ("0", 0), ("", 20), ("-1", 20), ("1.5", 20), ("99999", 20), ("Wed, 21 Oct 2026 07:28:00 GMT", 20)],
)
def test_only_a_plain_retry_after_is_used(header: str, seconds: int) -> None:
    response = httpx2.Response(429, request=REQUEST, headers={"retry-after": header})
    meant = as_core_exception(openai.RateLimitError("words", response=response, body=None))
    assert isinstance(meant, UpstreamBusyException)
    assert meant.retry_after_seconds == seconds
