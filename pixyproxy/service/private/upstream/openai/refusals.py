"""Classify an upstream's refusal: who can fix it, and whether another upstream may be called.

The body decides first, then the status. The formats are those of OpenAI, Azure, xAI, LocalAI, Together and OpenRouter:
an ``error`` that is an object or a text, with a ``code`` that is a word, a sentence or the status.
"""

import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, NamedTuple

from pixyproxy.core.exceptions import (
    ImageGenerationException,
    PromptRefusedException,
    UpstreamAddressException,
    UpstreamBusyException,
    UpstreamCredentialException,
    UpstreamErrorException,
    UpstreamFundsException,
    UpstreamSilentException,
)

SAFE_WORD = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,63}")
SAFE_PARAMETER = re.compile(r"[A-Za-z0-9_.\[\]-]{1,64}")
MOST_MESSAGE_CHARACTERS = 2000
NO_LETTER = re.compile(r"[^a-z0-9]")
GENERIC_WORDS = frozenset({"invalidrequesterror", "invalidrequest", "imagegenerationusererror"})
"""For an error without a status these words blame the request; with a status they mean nothing."""


class Refusal(NamedTuple):
    """An upstream's refusal: its error status or None, the words of its codes, and its message."""

    status: int | None
    words: frozenset[str]
    message: str


class Meaning(NamedTuple):
    """A row of ``TABLE``: the exception for a refusal with one of the words, a matching message or such a status."""

    exception: type[ImageGenerationException]
    words: frozenset[str] = frozenset()
    message: re.Pattern[str] | None = None
    statuses: frozenset[int] = frozenset()


def _plain(word: str) -> str:
    """Return a word without spelling differences: ``contentFilter`` equals ``content_filter``."""
    return NO_LETTER.sub("", word.lower())


def _words(text: str) -> frozenset[str]:
    return frozenset(map(_plain, text.split()))


def _message(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern, re.IGNORECASE)


TABLE = (
    Meaning(
        PromptRefusedException,
        words=_words(
            "moderation_blocked content_policy_violation content_filter content_filtered content_moderation "
            "ResponsibleAIPolicyViolation safety_violation flagged_input"
        ),
    ),
    Meaning(
        UpstreamFundsException,
        words=_words(
            "insufficient_quota billing_hard_limit_reached billing_limit_user_error billing_not_active "
            "insufficient_credits insufficient_funds insufficient_balance credit_limit credit_limit_exceeded "
            "payment_required"
        ),
        # A message may repeat the prompt, so only its start counts where a match affects other clients.
        message=_message(
            r"\A(billing hard limit|you exceeded your current quota|you have run out of credits|credit limit exceeded"
            r"|insufficient (credits|balance|funds|quota)|account \S{1,80} is suspended"
            r"|your (newly created )?teams? .{0,80}(doesn't have any credits|used all available credits))"
        ),
        statuses=frozenset({402}),
    ),
    Meaning(
        UpstreamCredentialException,
        words=_words("invalid_api_key api_key_invalid authentication_error organization_not_verified"),
        message=_message(
            r"\A(incorrect|invalid|missing|no) (api.?key|auth)|\Aan authentication key|\Aaccess denied due to"
            r"|\Ayour resource has been temporarily blocked"
        ),
        statuses=frozenset({401, 403, 407}),
    ),
    Meaning(
        UpstreamBusyException,
        words=_words("rate_limit_exceeded rate_limit_error rate_limit_reached model_rate_limit requests tokens"),
        statuses=frozenset({429}),
    ),
    Meaning(
        PromptRefusedException,
        words=_words("model_not_found model_not_available DeploymentNotFound"),
        message=_message(
            r"\bmodel\b.{0,200}\b(not exist|not found|not available)|\Aunable to access model|\Ano endpoints found"
        ),
    ),
    Meaning(
        PromptRefusedException,
        message=_message(
            r"safety[ _](system|filter|check)|moderat|\bflagged\b|\bnsfw\b|content (management )?(polic|filter)"
            r"|violat\w* .{0,40}(polic|guideline|terms)|(polic|guideline)\w* violation"
        ),
        statuses=frozenset({400, 413, 414, 415, 422, 431, 451}),
    ),
    # A client does not choose the path, so the base URL is wrong or redirects.
    Meaning(UpstreamAddressException, statuses=frozenset({301, 302, 303, 307, 308, 404, 405, 410, 421})),
    # Statuses of proxies that lost the connection to the upstream.
    Meaning(UpstreamSilentException, statuses=frozenset({408, 499, 502, 504, 520, 522, 524})),
)
"""The first row with a matching word or message decides, or else the first with the status.

The client can act on ``PromptRefusedException``, the operator on funds, credential and address; a busy upstream
recovers by itself. Anything else is a failure of the upstream.
"""


def exception_of(
    body: object, *, status: int | None = None, retry_after: int | None = None
) -> ImageGenerationException:
    """Return the exception for an upstream's error, with the part of its message that may be shown.

    ``body`` is its JSON or its text. ``status`` None: the error came in a successful response.
    """
    error = _error_of(body)
    refusal = _read(error, body, status)
    kind = _meaning(refusal)
    has_own_words = bool(error) and bool(refusal.words or refusal.message)
    if status is not None and status >= HTTPStatus.INTERNAL_SERVER_ERROR and not has_own_words:
        # A proxy in front of the upstream responded, so the upstream may have done the work.
        kind = UpstreamSilentException
    seconds = retry_after if kind is UpstreamBusyException else None
    return kind(retry_after_seconds=seconds, context=_shown_words(error.get("code"), error.get("param")))


def error_in_answer(answer: Mapping[str, Any]) -> ImageGenerationException | None:
    """Return the exception for an error in a successful response; None if there is no error."""
    return None if answer.get("error") in (None, False, "") else exception_of(answer)


def _meaning(refusal: Refusal) -> type[ImageGenerationException]:
    # The message of a server error says what failed, not who caused it.
    message = "" if (refusal.status or 0) >= HTTPStatus.INTERNAL_SERVER_ERROR else refusal.message
    for row in TABLE:
        if row.words & refusal.words or (row.message is not None and row.message.search(message)):
            return row.exception
    for row in TABLE:
        if refusal.status in row.statuses:
            return row.exception
    return UpstreamErrorException


def _error_of(body: object) -> Mapping[str, Any]:
    """Return the object with the error's code and message."""
    if isinstance(body, list) and body:
        body = body[0]
    if not isinstance(body, dict):
        return {}
    error = body.get("error", body)
    return error if isinstance(error, dict) else body


def _read(error: Mapping[str, Any], body: object, status: int | None) -> Refusal:
    inner = error.get("inner_error") or error.get("innererror")
    metadata = error.get("metadata")
    codes = [error.get("code"), error.get("type"), inner.get("code") if isinstance(inner, dict) else None]
    codes += [*metadata] if isinstance(metadata, dict) else []
    words = frozenset(_plain(code) for code in codes if isinstance(code, str)) - {""}
    texts = (error.get("message"), error.get("error"), error.get("detail"), body)
    message = next((text for text in texts if isinstance(text, str)), "").strip()
    if message.startswith("<"):
        # An HTML page comes from a proxy and says nothing about the upstream.
        message = ""
    return Refusal(status or _status_in(error, words), words, message[:MOST_MESSAGE_CHARACTERS])


def _status_in(error: Mapping[str, Any], words: frozenset[str]) -> int | None:
    """Return the status that an error without one gives as its code or by its words."""
    code = str(error.get("code"))
    if re.fullmatch(r"4[0-9]{2}", code):
        return int(code)
    return HTTPStatus.BAD_REQUEST if words & GENERIC_WORDS else None


def _shown_words(code: object, parameter: object) -> dict[str, str]:
    """Return the upstream's own code and parameter name, if they are plain words."""
    context = {}
    if isinstance(code, str) and SAFE_WORD.fullmatch(code):
        context["upstream_code"] = code
    if isinstance(parameter, str) and SAFE_PARAMETER.fullmatch(parameter):
        context["upstream_param"] = parameter
    return context
