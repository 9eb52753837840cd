"""A real HTTP server that plays the OpenAI Images API, well-behaved or not.

In a test::

    with FakeUpstream() as upstream:
        upstream.behave_once(RATE_LIMITED)
        ...  # point the code under test at upstream.base_url and upstream.api_key
        assert len(upstream.requests) == 1

For benchmarks, `python -m tests.support.upstream --picture-bytes 1470000` prints its
base URL on the first line and serves until it is terminated.

What it answers and refuses follows the types of openai 3.52 and OpenAI's error
envelope. It does not stream: `stream=true` is refused.
"""

from tests.support.upstream.behaviours import (
    BAD_BASE64,
    BROKEN_JSON,
    CONFLICT,
    CUT,
    DATA_EMPTY,
    DATA_NULL,
    EMPTY_BODY,
    FORBIDDEN,
    HANG,
    HANG_AFTER_HEADERS,
    HTML,
    HTML_AS_PNG,
    HUGE_PIXELS,
    JSON_LIST,
    JSON_STRING,
    MODERATED,
    NO_PICTURE,
    NORMAL,
    NOT_FOUND,
    NUMBER_FOR_PICTURE,
    POLICY_VIOLATION,
    QUOTA_EXHAUSTED,
    RATE_LIMITED,
    SERVER_ERROR,
    SLOW_DRIP,
    SVG_AS_PNG,
    TRUNCATED,
    UNAUTHORIZED,
    UNAVAILABLE,
    UNPROCESSABLE,
    Behaviour,
    Cut,
    Drip,
    Flood,
    Hang,
    Normal,
    Refusal,
    Verbatim,
)
from tests.support.upstream.exchange import Exchange, UpstreamRequest
from tests.support.upstream.server import API_KEY, GENERATIONS_PATH, FakeUpstream, refusing_base_url
from tests.support.upstream.validation import KNOWN_PARAMETERS

__all__ = [
    "API_KEY",
    "BAD_BASE64",
    "BROKEN_JSON",
    "CONFLICT",
    "CUT",
    "DATA_EMPTY",
    "DATA_NULL",
    "EMPTY_BODY",
    "FORBIDDEN",
    "GENERATIONS_PATH",
    "HANG",
    "HANG_AFTER_HEADERS",
    "HTML",
    "HTML_AS_PNG",
    "HUGE_PIXELS",
    "JSON_LIST",
    "JSON_STRING",
    "KNOWN_PARAMETERS",
    "MODERATED",
    "NORMAL",
    "NOT_FOUND",
    "NO_PICTURE",
    "NUMBER_FOR_PICTURE",
    "POLICY_VIOLATION",
    "QUOTA_EXHAUSTED",
    "RATE_LIMITED",
    "SERVER_ERROR",
    "SLOW_DRIP",
    "SVG_AS_PNG",
    "TRUNCATED",
    "UNAUTHORIZED",
    "UNAVAILABLE",
    "UNPROCESSABLE",
    "Behaviour",
    "Cut",
    "Drip",
    "Exchange",
    "FakeUpstream",
    "Flood",
    "Hang",
    "Normal",
    "Refusal",
    "UpstreamRequest",
    "Verbatim",
    "refusing_base_url",
]
