"""What an error that the upstream puts into words means here, and which of its words may be told."""

import re
from typing import Any

from pixyproxy.core.exceptions import (
    ImageGenerationException,
    PromptRefusedException,
    UpstreamBusyException,
    UpstreamErrorException,
)

BUSY = frozenset({"rate_limit_exceeded", "rate_limit_error", "insufficient_quota", "requests", "tokens"})
REFUSED = frozenset(
    {
        "invalid_request_error",
        "invalid_request",
        "image_generation_user_error",
        "moderation_blocked",
        "content_policy_violation",
    }
)
"""Words of an error's ``code`` or ``type`` that say that the same request will be refused again."""

SAFE_WORD = re.compile(r"[A-Za-z0-9_.-]{1,64}")
SAFE_PARAMETER = re.compile(r"[A-Za-z0-9_.\[\]-]{1,64}")


def error_of_event(error: dict[str, Any]) -> ImageGenerationException:
    """What an error in a stream means, whose status said that all is well."""
    words = {word for word in (error.get("code"), error.get("type")) if isinstance(word, str)}
    context = upstream_words(error.get("code"), error.get("param"))
    if words & BUSY:
        return UpstreamBusyException(context=context)
    if words & REFUSED:
        return PromptRefusedException(context=context)
    return UpstreamErrorException(context=context)


def upstream_words(code: object, parameter: object) -> dict[str, str]:
    """The upstream's own code and the parameter that it complains about, where they are plain words."""
    context = {}
    if isinstance(code, str) and SAFE_WORD.fullmatch(code):
        context["upstream_code"] = code
    if isinstance(parameter, str) and SAFE_PARAMETER.fullmatch(parameter):
        context["upstream_param"] = parameter
    return context
