"""What a request to the fake upstream may get: the well-behaved answer, and every kind of fault."""

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from tests.support import pictures

if TYPE_CHECKING:
    from tests.support.upstream.exchange import Exchange

JSON = "application/json"


class Behaviour(Protocol):
    """What a request to the generations endpoint gets."""

    def answer(self, exchange: "Exchange") -> None:
        """Answer one recorded request."""


@dataclass(frozen=True, kw_only=True)
class Normal:
    """Validate as the real API does, then deliver."""

    picture: bytes | None = None
    """Served instead of the upstream's picture, whatever format was asked for."""

    def answer(self, exchange: "Exchange") -> None:
        """Refuse what the real API refuses, or send n pictures."""
        refusal = exchange.refusal()
        if refusal:
            refusal.answer(exchange)
        else:
            exchange.send(*exchange.generation(self.picture))


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """An error in OpenAI's envelope, whatever was asked."""

    status: int
    message: str
    kind: str = "invalid_request_error"
    code: str | None = None
    param: str | None = None
    retry_after: int | None = None

    def answer(self, exchange: "Exchange") -> None:
        """Send the error."""
        error = {
            "message": self.message,
            "type": self.kind,
            "param": self.param,
            "code": self.code,
        }
        headers = {} if self.retry_after is None else {"Retry-After": self.retry_after}
        body = json.dumps({"error": error}).encode()
        exchange.send(body, status=self.status, headers=headers)


@dataclass(frozen=True, kw_only=True)
class Verbatim:
    """These very bytes, with a true Content-Length."""

    body: bytes
    status: int = 200
    content_type: str = JSON

    def answer(self, exchange: "Exchange") -> None:
        """Send the bytes."""
        exchange.send(self.body, status=self.status, content_type=self.content_type)


@dataclass(frozen=True, kw_only=True)
class Hang:
    """No answer before `FakeUpstream.release`, which lets the usual answer follow."""

    after_headers: bool = False

    def answer(self, exchange: "Exchange") -> None:
        """Wait, with or without having sent the headers."""
        parts = exchange.generation()
        if self.after_headers:
            exchange.send_head(sum(map(len, parts)))
            exchange.wait_for_release()
            exchange.write(*parts)
        else:
            exchange.wait_for_release()
            exchange.send(*parts)


@dataclass(frozen=True, kw_only=True)
class Drip:
    """The usual answer in small pieces, so that no single read ever times out."""

    piece: int = 16
    pause: float = 0.05

    def answer(self, exchange: "Exchange") -> None:
        """Send piece by piece until all is sent, or the client or server is gone."""
        body = b"".join(exchange.generation())
        exchange.send_head(len(body))
        for start in range(0, len(body), self.piece):
            exchange.write(body[start : start + self.piece])
            exchange.pause(self.pause)


@dataclass(frozen=True, kw_only=True)
class Cut:
    """The connection closed after a share of the body, or before any byte at all."""

    share: float | None = None

    def answer(self, exchange: "Exchange") -> None:
        """Promise the whole body where there is a share of it, then hang up."""
        if self.share is not None:
            body = b"".join(exchange.generation())
            exchange.send_head(len(body))
            exchange.write(body[: int(len(body) * self.share)])
        exchange.hang_up()


@dataclass(frozen=True, kw_only=True)
class Flood:
    """A valid answer of `megabytes` MB in one b64_json, sent as it is made.

    `announced` says whether a Content-Length gives it away, or only counting does.
    """

    megabytes: int
    announced: bool = False

    def answer(self, exchange: "Exchange") -> None:
        """Send the flood, never holding more than one piece of it."""
        head, tail = b'{"created":1,"data":[{"b64_json":"', b'"}]}'
        piece, count = b"A" * 100_000, self.megabytes * 10
        size = len(head) + len(piece) * count + len(tail)
        exchange.send_head(size if self.announced else None)
        for part in (head, *[piece] * count, tail):
            exchange.write(part if self.announced else _chunk(part))
        if not self.announced:
            exchange.write(_chunk(b""))


def _chunk(part: bytes) -> bytes:
    """Return one chunk of HTTP/1.1's chunked coding; an empty one is the last."""
    return b"%x\r\n%b\r\n" % (len(part), part)


def _delivering(item: bytes) -> Verbatim:
    return Verbatim(body=b'{"created":1,"data":[%b]}' % item)


NORMAL = Normal()
MODERATED = Refusal(
    status=400,
    message="Your request was rejected by the safety system.",
    kind="image_generation_user_error",
    code="moderation_blocked",
)
POLICY_VIOLATION = Refusal(
    status=400,
    message="Your request was rejected as a result of our safety system.",
    code="content_policy_violation",
)
UNAUTHORIZED = Refusal(status=401, message="Incorrect API key provided.", code="invalid_api_key")
FORBIDDEN = Refusal(
    status=403,
    message="Your organization must be verified to use this model.",
    code="organization_not_verified",
)
NOT_FOUND = Refusal(status=404, message="The model does not exist.", code="model_not_found")
CONFLICT = Refusal(status=409, message="The resource was updated by another request.")
UNPROCESSABLE = Refusal(status=422, message="The request could not be processed.")
RATE_LIMITED = Refusal(
    status=429,
    message="Rate limit reached for images per minute.",
    kind="requests",
    code="rate_limit_exceeded",
    retry_after=7,
)
QUOTA_EXHAUSTED = Refusal(
    status=429,
    message="You exceeded your current quota.",
    kind="insufficient_quota",
    code="insufficient_quota",
)
SERVER_ERROR = Refusal(status=500, message="The server had an error.", kind="server_error")
UNAVAILABLE = Refusal(status=503, message="Overloaded.", kind="service_unavailable")
HANG = Hang()
HANG_AFTER_HEADERS = Hang(after_headers=True)
SLOW_DRIP = Drip()
CUT = Cut()
TRUNCATED = Cut(share=0.5)
HTML = Verbatim(body=b"<html>A proxy's page</html>", content_type="text/html")
EMPTY_BODY = Verbatim(body=b"")
DATA_NULL = Verbatim(body=b'{"created":1,"data":null}')
DATA_EMPTY = Verbatim(body=b'{"created":1,"data":[]}')
JSON_LIST = Verbatim(body=b"[1,2,3]")
JSON_STRING = Verbatim(body=b'"a string"')
BROKEN_JSON = Verbatim(body=b'{"created":1,"data":[{"b64_json":')
NO_PICTURE = _delivering(b"{}")
NUMBER_FOR_PICTURE = _delivering(b'{"b64_json":12345}')
BAD_BASE64 = _delivering(b'{"b64_json":"@@@ no base64 @@@"}')
SVG_AS_PNG = Normal(picture=pictures.svg())
HTML_AS_PNG = Normal(picture=b"<!DOCTYPE html><html><script>alert(1)</script></html>")
HUGE_PIXELS = Normal(picture=pictures.png_claiming(50_000, 50_000))
