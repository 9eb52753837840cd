"""What the OpenAI SDK and its HTTP client raise, and what that means here."""

import re

import httpx2
import openai

from pixyproxy.core.exceptions import (
    ImageGenerationException,
    PromptRefusedException,
    UpstreamAnswerException,
    UpstreamBusyException,
    UpstreamCredentialException,
    UpstreamErrorException,
    UpstreamSilentException,
    UpstreamTimeoutException,
    UpstreamUnreachableException,
)
from pixyproxy.service.private.upstream.refusals import upstream_words

EXCEPTIONS: dict[type[Exception], type[ImageGenerationException]] = {
    openai.BadRequestError: PromptRefusedException,
    openai.UnprocessableEntityError: PromptRefusedException,
    openai.NotFoundError: PromptRefusedException,
    openai.ConflictError: UpstreamErrorException,
    openai.AuthenticationError: UpstreamCredentialException,
    openai.PermissionDeniedError: UpstreamCredentialException,
    openai.RateLimitError: UpstreamBusyException,
    openai.InternalServerError: UpstreamErrorException,
    openai.APIStatusError: UpstreamErrorException,
    openai.APITimeoutError: UpstreamTimeoutException,
    openai.APIConnectionError: UpstreamSilentException,
    openai.APIResponseValidationError: UpstreamAnswerException,
    openai.APIError: UpstreamSilentException,
    openai.OpenAIError: UpstreamSilentException,
    TimeoutError: UpstreamTimeoutException,
    httpx2.TimeoutException: UpstreamTimeoutException,
    httpx2.HTTPError: UpstreamSilentException,
}
"""What is raised → what it means here. The nearest base class decides for a class that is not listed."""

RAISED = (openai.OpenAIError, httpx2.HTTPError, TimeoutError)
"""Whatever a request may raise is one of these, while the body of its answer arrives too."""

NOTHING_SENT = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout, httpx2.UnsupportedProtocol)
"""Failures before a byte of the request left: certainly nothing was bought."""

GATEWAY_STATUSES = frozenset({408, 499, 502, 504, 520, 522, 524})
"""What proxies say of an upstream that they lost, in whatever words."""

RETRY_AFTER = re.compile(r"[0-9]{1,4}")


def as_core_exception(error: Exception) -> ImageGenerationException:
    """What one of ``RAISED`` means here, with those of the upstream's words that may be told."""
    if isinstance(error, openai.APIConnectionError) and isinstance(error.__cause__, NOTHING_SENT):
        return UpstreamUnreachableException()
    if isinstance(error, openai.APIStatusError) and _is_from_between(error):
        return UpstreamSilentException()
    kind = next(EXCEPTIONS[base] for base in type(error).__mro__ if base in EXCEPTIONS)
    return kind(retry_after_seconds=_retry_after(error), context=_words(error))


def _is_from_between(error: openai.APIStatusError) -> bool:
    """Whether something between us and the upstream answered, which leaves open what the upstream did."""
    own_words = isinstance(error.body, dict) and "message" in error.body
    return error.status_code in GATEWAY_STATUSES or (isinstance(error, openai.InternalServerError) and not own_words)


def _words(error: Exception) -> dict[str, str]:
    return upstream_words(error.code, error.param) if isinstance(error, openai.APIError) else {}


def _retry_after(error: Exception) -> int | None:
    header = error.response.headers.get("retry-after", "") if isinstance(error, openai.RateLimitError) else ""
    return int(header) if RETRY_AFTER.fullmatch(header) else None
