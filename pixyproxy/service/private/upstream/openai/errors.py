"""Map exceptions of the OpenAI SDK and its HTTP client to PixyProxy's."""

import re

import httpx2
import openai
from pydantic_core import from_json

from pixyproxy.core.exceptions import (
    ImageGenerationException,
    UpstreamAnswerException,
    UpstreamSilentException,
    UpstreamTimeoutException,
    UpstreamUnreachableException,
)
from pixyproxy.service.private.upstream.openai.refusals import exception_of

EXCEPTIONS: dict[type[Exception], type[ImageGenerationException]] = {
    openai.APITimeoutError: UpstreamTimeoutException,
    openai.APIConnectionError: UpstreamSilentException,
    openai.APIResponseValidationError: UpstreamAnswerException,
    openai.APIError: UpstreamSilentException,
    openai.OpenAIError: UpstreamSilentException,
    TimeoutError: UpstreamTimeoutException,
    httpx2.TimeoutException: UpstreamTimeoutException,
    httpx2.HTTPError: UpstreamSilentException,
}
"""Maps SDK exceptions to PixyProxy's. An unlisted class uses its nearest base class."""

RAISED = (openai.OpenAIError, httpx2.HTTPError, TimeoutError)
"""The base classes of everything a request may raise, also while the response body arrives."""

NOTHING_SENT = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout, httpx2.UnsupportedProtocol)
"""Failures before a byte of the request was sent: certainly nothing was bought."""

RETRY_AFTER = re.compile(r"[0-9]{1,4}")


def as_core_exception(error: Exception) -> ImageGenerationException:
    """Map one of ``RAISED`` to PixyProxy's exception, with the safe part of the upstream's message."""
    if isinstance(error, openai.APIConnectionError) and isinstance(error.__cause__, NOTHING_SENT):
        return UpstreamUnreachableException()
    if isinstance(error, openai.APIStatusError):
        return exception_of(
            _body_of(error.response), status=error.status_code, retry_after=_retry_after(error.response)
        )
    kind = next(EXCEPTIONS[base] for base in type(error).__mro__ if base in EXCEPTIONS)
    return kind()


def _body_of(response: httpx2.Response) -> object:
    """Return the JSON or the text of a response; the SDK passes on only a part of it."""
    try:
        content = response.content
        return from_json(content, allow_inf_nan=False)
    except httpx2.ResponseNotRead:
        return ""
    except ValueError:
        return content.decode(errors="replace")


def _retry_after(response: httpx2.Response) -> int | None:
    header = response.headers.get("retry-after", "")
    return int(header) if RETRY_AFTER.fullmatch(header) else None
