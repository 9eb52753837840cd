"""What an upstream's refusal means here: whose affair it is, and whether another upstream may be asked.

What the body says decides, then the status. The shapes are those of OpenAI, Azure, xAI, LocalAI, Together and
OpenRouter: an ``error`` that is an object or a text, with a ``code`` that is a word, a sentence or the status.
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
"""Of an error without a status, these say that the request is at fault; with one they say nothing."""


class Refusal(NamedTuple):
    """What an upstream said: its status if it is one of an error, the words of its codes, and its message."""

    status: int | None
    words: frozenset[str]
    message: str


class Meaning(NamedTuple):
    """A row of ``TABLE``: what a refusal means that has one of the words, such a message, or such a status."""

    exception: type[ImageGenerationException]
    words: frozenset[str] = frozenset()
    message: re.Pattern[str] | None = None
    statuses: frozenset[int] = frozenset()


def _plain(word: str) -> str:
    """Return a word without what servers spell differently: ``contentFilter`` is ``content_filter``."""
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
        # A message may repeat the prompt, so only its beginning counts where it could turn others away.
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
    # Whatever is not there was not asked for by a client: the base URL is wrong, or leads to somewhere else.
    Meaning(UpstreamAddressException, statuses=frozenset({301, 302, 303, 307, 308, 404, 405, 410, 421})),
    # What proxies say of an upstream that they lost, in whatever words.
    Meaning(UpstreamSilentException, statuses=frozenset({408, 499, 502, 504, 520, 522, 524})),
)
"""The first row that a word or the message fits decides, or else the first one that the status fits.

Whoever is meant by a row can do something about it: the client about ``PromptRefusedException``, the operator about
funds, credential and address, time about busy. Anything else is a failure of the upstream's own.
"""


def exception_of(
    body: object, *, status: int | None = None, retry_after: int | None = None
) -> ImageGenerationException:
    """Return what an upstream's error means, with those of its words that may be shown.

    ``body`` is its JSON or its text. ``status`` None: the error came in an answer whose status says that all is well.
    """
    error = _error_of(body)
    refusal = _read(error, body, status)
    kind = _meaning(refusal)
    has_own_words = bool(error) and bool(refusal.words or refusal.message)
    if status is not None and status >= HTTPStatus.INTERNAL_SERVER_ERROR and not has_own_words:
        # Something between us and the upstream answered, which leaves open what the upstream did.
        kind = UpstreamSilentException
    seconds = retry_after if kind is UpstreamBusyException else None
    return kind(retry_after_seconds=seconds, context=_shown_words(error.get("code"), error.get("param")))


def error_in_answer(answer: Mapping[str, Any]) -> ImageGenerationException | None:
    """Return what the error in an answer means whose status says that all is well; None if there is none."""
    return None if answer.get("error") in (None, False, "") else exception_of(answer)


def _meaning(refusal: Refusal) -> type[ImageGenerationException]:
    # A failure's message tells what failed, not whose fault it is.
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
        # A page is a proxy's, and says nothing.
        message = ""
    return Refusal(status or _status_in(error, words), words, message[:MOST_MESSAGE_CHARACTERS])


def _status_in(error: Mapping[str, Any], words: frozenset[str]) -> int | None:
    """Return the status that an error without one names as its code, or that its words amount to."""
    code = str(error.get("code"))
    if re.fullmatch(r"4[0-9]{2}", code):
        return int(code)
    return HTTPStatus.BAD_REQUEST if words & GENERIC_WORDS else None


def _shown_words(code: object, parameter: object) -> dict[str, str]:
    """The upstream's own code and the parameter that it complains about, where they are plain words."""
    context = {}
    if isinstance(code, str) and SAFE_WORD.fullmatch(code):
        context["upstream_code"] = code
    if isinstance(parameter, str) and SAFE_PARAMETER.fullmatch(parameter):
        context["upstream_param"] = parameter
    return context
