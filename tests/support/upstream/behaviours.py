"""Behaviours of the fake upstream: the normal response, and every kind of fault."""

import asyncio
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from tests.support import pictures

if TYPE_CHECKING:
    from tests.support.upstream.exchange import Exchange

JSON = "application/json"


class Behaviour(Protocol):
    """The behaviour for a POST to the generations or edits endpoint."""

    async def answer(self, exchange: "Exchange") -> None:
        """Respond to one recorded request."""


@dataclass(frozen=True, kw_only=True)
class Normal:
    """Validate as the real API does, then deliver."""

    picture: bytes | None = None
    """Served instead of the upstream's picture, in any requested format."""

    async def answer(self, exchange: "Exchange") -> None:
        """Reject what the real API rejects, or deliver n pictures, streamed if requested."""
        refusal = exchange.refusal()
        if refusal:
            await refusal.answer(exchange)
        else:
            await exchange.deliver(exchange.buy(self.picture))


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """An error in OpenAI's envelope, for any request."""

    status: int
    message: str
    kind: str = "invalid_request_error"
    code: str | None = None
    param: str | None = None
    retry_after: int | None = None

    async def answer(self, exchange: "Exchange") -> None:
        """Send the error."""
        error = {
            "message": self.message,
            "type": self.kind,
            "param": self.param,
            "code": self.code,
        }
        headers = {} if self.retry_after is None else {"Retry-After": self.retry_after}
        body = json.dumps({"error": error}).encode()
        await exchange.send(body, status=self.status, headers=headers)


@dataclass(frozen=True, kw_only=True)
class Verbatim:
    """Exactly these bytes, with a correct Content-Length. A 2xx is paid for even if it is unusable."""

    body: bytes
    status: int = 200
    content_type: str = JSON

    async def answer(self, exchange: "Exchange") -> None:
        """Send the bytes."""
        if 200 <= self.status < 300:
            exchange.settle(bought=True, status=self.status, pictures=self.body.count(b'"b64_json"'))
        await exchange.send(self.body, status=self.status, content_type=self.content_type)


@dataclass(frozen=True, kw_only=True)
class Hang:
    """No response before `FakeUpstream.release`, which sends the normal response.

    If the headers are sent, the pictures are bought at once; otherwise only at the release.
    """

    after_headers: bool = False

    async def answer(self, exchange: "Exchange") -> None:
        """Wait, before or after sending the headers."""
        if not self.after_headers:
            await exchange.wait_for_release()
            await NORMAL.answer(exchange)
            return
        usual = exchange.buy()
        await exchange.send_head(usual.size, content_type=usual.content_type)
        await exchange.wait_for_release()
        await exchange.write(*usual.parts)
        await exchange.end()


@dataclass(frozen=True, kw_only=True)
class Drip:
    """The normal response in small pieces, so that no single read ever times out."""

    piece: int = 16
    pause: float = 0.05

    async def answer(self, exchange: "Exchange") -> None:
        """Send piece by piece until all is sent, or the client or server is gone."""
        usual = exchange.buy()
        body = b"".join(usual.parts)
        await exchange.send_head(usual.size, content_type=usual.content_type)
        for start in range(0, len(body), self.piece):
            await exchange.write(body[start : start + self.piece])
            await asyncio.sleep(self.pause)
        await exchange.end()


@dataclass(frozen=True, kw_only=True)
class Cut:
    """A connection closed after a share of the body, or before any byte at all.

    Both are the worst case: the pictures were made, and are paid for.
    """

    share: float | None = None

    async def answer(self, exchange: "Exchange") -> None:
        """Announce the whole body if a share of it is sent, then hang up."""
        usual = exchange.buy()
        if self.share is not None:
            body = b"".join(usual.parts)
            await exchange.send_head(usual.size, content_type=usual.content_type)
            await exchange.write(body[: int(len(body) * self.share)])
        exchange.hang_up()


@dataclass(frozen=True, kw_only=True)
class Flood:
    """A valid response of `megabytes` MB in one b64_json, generated while it is sent.

    `announced` says whether a Content-Length states the size; otherwise the client must count.
    """

    megabytes: int
    announced: bool = False

    async def answer(self, exchange: "Exchange") -> None:
        """Send the flood, holding at most one piece of it in memory."""
        exchange.settle(bought=True, pictures=1)
        head, tail = b'{"created":1,"data":[{"b64_json":"', b'"}]}'
        size = len(head) + len(FLOOD_PIECE) * self.megabytes * 10 + len(tail)
        await exchange.send_head(size if self.announced else None)
        await exchange.write(head)
        await pour(exchange, megabytes=self.megabytes)
        await exchange.write(tail)
        await exchange.end()


FLOOD_PIECE = b"A" * 100_000


async def pour(exchange: "Exchange", *, megabytes: int) -> None:
    """Send this many MB of base64."""
    for _ in range(megabytes * 10):
        await exchange.write(FLOOD_PIECE)
        # A client that reads as fast as this sends must not block the others.
        await asyncio.sleep(0)


@dataclass(frozen=True, kw_only=True)
class Linked:
    """A valid response with URLs of the pictures, as LocalAI, Together and xAI send it.

    The URLs are below ``PICTURES_PATH`` on this host, unless `root` is set. A picture is drawn from its name.
    """

    root: str | None = None

    async def answer(self, exchange: "Exchange") -> None:
        """Reject what the real API rejects, or respond with n URLs."""
        refusal = exchange.refusal()
        if refusal:
            await refusal.answer(exchange)
            return
        exchange.settle(bought=True)
        order = exchange.order
        root = self.root or f"http://{exchange.received.headers['host']}"
        url = f"{root}{PICTURES_PATH}/{order.width}x{order.height}.{order.output_format}"
        body = {"created": 1, "data": [{"url": url, "b64_json": None}] * order.count}
        await exchange.send(json.dumps(body).encode())


PICTURES_PATH = "/files"


@dataclass(frozen=True, kw_only=True)
class Respelled:
    """The normal response with base64 as PHP and .NET write it: in lines and without padding."""

    async def answer(self, exchange: "Exchange") -> None:
        """Deliver in the other encoding."""
        usual = json.loads(b"".join(exchange.buy().parts))
        texts = [item.pop("b64_json").rstrip("=") for item in usual["data"]]
        lines = [r"\r\n".join(text[start : start + 76] for start in range(0, len(text), 76)) for text in texts]
        items = [f'{{"b64_json":"{text}"}}'.replace("/", r"\/").replace("+", r"\u002B") for text in lines]
        usual["data"] = None
        await exchange.send(json.dumps(usual).replace('"data": null', f'"data": [{",".join(items)}]').encode())


def _delivering(item: bytes) -> Verbatim:
    return Verbatim(body=b'{"created":1,"data":[%b]}' % item)


NORMAL = Normal()
LINKED = Linked()
RESPELLED = Respelled()
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
OUT_OF_CREDIT = Refusal(
    status=400,
    message="Billing hard limit has been reached.",
    kind="billing_limit_user_error",
    code="billing_hard_limit_reached",
)
FORBIDDEN_CONTENT = Verbatim(
    body=json.dumps(
        {
            "code": "The caller does not have permission to execute the specified operation",
            "error": "Content violates usage guidelines. Failed check: SAFETY_CHECK_TYPE_BIO",
        }
    ).encode(),
    status=403,
)
NO_SUCH_URL = Refusal(status=404, message="Invalid URL (POST /images/generations)")
SERVER_ERROR = Refusal(status=500, message="The server had an error.", kind="server_error")
UNAVAILABLE = Refusal(status=503, message="Overloaded.", kind="service_unavailable")
HANG = Hang()
HANG_AFTER_HEADERS = Hang(after_headers=True)
SLOW_DRIP = Drip()
CUT = Cut()
TRUNCATED = Cut(share=0.5)
FLOOD = Flood(megabytes=500)
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
