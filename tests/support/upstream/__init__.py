"""A real HTTP server that plays the OpenAI Images API, well-behaved or not.

In a test::

    with FakeUpstream() as upstream:
        upstream.behave_once(RATE_LIMITED)
        upstream.behave_for("a red fox", STREAM_CUT, times=1)
        ...  # point the code under test at upstream.base_url and upstream.api_key
        assert len(upstream.requests) == 1
        assert upstream.posts_by_prompt["a red fox"] == 1
        assert [line.prompt for line in upstream.ledger if line.bought] == ["a red fox"]

It serves POSTs to generations and edits, streamed if `stream` is true, and GETs of the
models. Its responses and errors follow the types of openai 3.52 and OpenAI's error
envelope. Behaviours apply to POSTs only; those for streams (`STREAM_...`) do not affect
other requests.

`FakeUpstream.ledger` records what was bought. Every POST for pictures gets one line,
written when delivery is decided and before a byte of the response is sent: a client that
has hung up pays as well. A response with an error status, an error event, or none at all
is not bought. If a connection is cut, a 2xx is malformed or a stream lacks its end, the
pictures count as made and paid for: the worst case.

`FakeUpstream.posts` records when each POST started and ended, and whether its response
was delivered; `most_at_once` and `most_started_within` count over them.

In a stream of several pictures, the usages of the completed events add up to the
order's usage. The first one includes the tokens of the input and of the partial pictures.

As a separate process, `python -m tests.support.upstream` prints its base URL on the
first line and serves until it is terminated; SIGUSR1 releases hung requests. Its options:
`--picture-bytes 1470000`, `--delay SECONDS`, `--port`, `--api-key`, `--ledger FILE`
(one JSON line for every line of the ledger, flushed), and `--script FILE`: a JSON list
of `{"match": part of a prompt, "behaviour": NAME, "times": optional}`, where NAME is
a constant below, such as `"STREAM_HANG"`. All connections share one thread, so that
thousands of requests may wait at once.
"""

from tests.support.upstream.behaviours import (
    BAD_BASE64,
    BROKEN_JSON,
    CONFLICT,
    CUT,
    DATA_EMPTY,
    DATA_NULL,
    EMPTY_BODY,
    FLOOD,
    FORBIDDEN,
    FORBIDDEN_CONTENT,
    HANG,
    HANG_AFTER_HEADERS,
    HTML,
    HTML_AS_PNG,
    HUGE_PIXELS,
    JSON_LIST,
    JSON_STRING,
    LINKED,
    MODERATED,
    NO_PICTURE,
    NO_SUCH_URL,
    NORMAL,
    NOT_FOUND,
    NUMBER_FOR_PICTURE,
    OUT_OF_CREDIT,
    POLICY_VIOLATION,
    QUOTA_EXHAUSTED,
    RATE_LIMITED,
    RESPELLED,
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
    Linked,
    Normal,
    Refusal,
    Respelled,
    Verbatim,
)
from tests.support.upstream.edits import EDIT_PARAMETERS
from tests.support.upstream.exchange import EDITS_PATH, GENERATIONS_PATH, Exchange, UpstreamRequest
from tests.support.upstream.forms import UploadedFile
from tests.support.upstream.ledger import LedgerLine
from tests.support.upstream.models import MODELS
from tests.support.upstream.named import BEHAVIOURS
from tests.support.upstream.posts import Post, most_at_once, most_started_within
from tests.support.upstream.server import API_KEY, FakeUpstream, refusing_base_url
from tests.support.upstream.stream_behaviours import (
    STREAM_BROKEN_DATA,
    STREAM_CRLF,
    STREAM_CRLF_HEARTBEATS,
    STREAM_CUT,
    STREAM_CUT_BEFORE_EVENTS,
    STREAM_CUT_WITHIN,
    STREAM_ERROR,
    STREAM_FLOOD,
    STREAM_GARBAGE_LINE,
    STREAM_HANG,
    STREAM_HEARTBEATS,
    STREAM_INCOMPLETE,
    StreamBehaviour,
    StreamCut,
    StreamError,
    StreamFlood,
    StreamHang,
    StreamIncomplete,
    StreamInsertion,
    StreamVariant,
)
from tests.support.upstream.timed import Delayed, Gate
from tests.support.upstream.validation import KNOWN_PARAMETERS

__all__ = [
    "API_KEY",
    "BAD_BASE64",
    "BEHAVIOURS",
    "BROKEN_JSON",
    "CONFLICT",
    "CUT",
    "DATA_EMPTY",
    "DATA_NULL",
    "EDITS_PATH",
    "EDIT_PARAMETERS",
    "EMPTY_BODY",
    "FLOOD",
    "FORBIDDEN",
    "FORBIDDEN_CONTENT",
    "GENERATIONS_PATH",
    "HANG",
    "HANG_AFTER_HEADERS",
    "HTML",
    "HTML_AS_PNG",
    "HUGE_PIXELS",
    "JSON_LIST",
    "JSON_STRING",
    "KNOWN_PARAMETERS",
    "LINKED",
    "MODELS",
    "MODERATED",
    "NORMAL",
    "NOT_FOUND",
    "NO_PICTURE",
    "NO_SUCH_URL",
    "NUMBER_FOR_PICTURE",
    "OUT_OF_CREDIT",
    "POLICY_VIOLATION",
    "QUOTA_EXHAUSTED",
    "RATE_LIMITED",
    "RESPELLED",
    "SERVER_ERROR",
    "SLOW_DRIP",
    "STREAM_BROKEN_DATA",
    "STREAM_CRLF",
    "STREAM_CRLF_HEARTBEATS",
    "STREAM_CUT",
    "STREAM_CUT_BEFORE_EVENTS",
    "STREAM_CUT_WITHIN",
    "STREAM_ERROR",
    "STREAM_FLOOD",
    "STREAM_GARBAGE_LINE",
    "STREAM_HANG",
    "STREAM_HEARTBEATS",
    "STREAM_INCOMPLETE",
    "SVG_AS_PNG",
    "TRUNCATED",
    "UNAUTHORIZED",
    "UNAVAILABLE",
    "UNPROCESSABLE",
    "Behaviour",
    "Cut",
    "Delayed",
    "Drip",
    "Exchange",
    "FakeUpstream",
    "Flood",
    "Gate",
    "Hang",
    "LedgerLine",
    "Linked",
    "Normal",
    "Post",
    "Refusal",
    "Respelled",
    "StreamBehaviour",
    "StreamCut",
    "StreamError",
    "StreamFlood",
    "StreamHang",
    "StreamIncomplete",
    "StreamInsertion",
    "StreamVariant",
    "UploadedFile",
    "UpstreamRequest",
    "Verbatim",
    "most_at_once",
    "most_started_within",
    "refusing_base_url",
]
