"""Linked pictures: fetched from the upstream's own host, and from other hosts that are allowed."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from pixyproxy.core import exceptions as core
from pixyproxy.core.models.order import PictureOrder, UpstreamAnswer
from pixyproxy.service.private.upstream.openai.images import MOST_OTHER_BYTES
from tests.service.private.upstream.openai.adapters import LONG, SHORT, open_adapter, whole
from tests.service.private.upstream.openai.sinks import FakeSink
from tests.support import pictures

pytestmark = pytest.mark.anyio
FOX = PictureOrder(prompt="a red fox", model="flux", count=2)
FIRST, SECOND = pictures.png(16, 16, seed=1), pictures.noise_png(600_000)
KEY = "sk-x"


@dataclass
class _FakeHost:
    """A host that sends these bytes to the requests for each path, one after the other, and then disconnects."""

    answers: dict[str, list[bytes]] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    hang_up: asyncio.Event = field(default_factory=asyncio.Event)
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def serve(self, path: str, *answers: bytes) -> str:
        """Set the responses of a path, repeating the last one; return its URL."""
        self.answers[path] = list(answers)
        return self.url + path

    def heads(self, method: str) -> list[str]:
        """Return the heads of the requests so far, in lower case."""
        return [head.lower() for head in self.requests if head.startswith(method)]

    async def converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            self.requests.append(head)
            answers = self.answers[head.split(" ")[1]]
            answer = answers.pop(0) if len(answers) > 1 else answers[0]
            writer.write(answer)
            await writer.drain()
            if not answer:
                await reader.read()
                self.hang_up.set()
        writer.close()


@asynccontextmanager
async def _serving() -> AsyncIterator[_FakeHost]:
    host = _FakeHost()
    async with await asyncio.start_server(host.converse, "127.0.0.1", 0) as server:
        host.port = server.sockets[0].getsockname()[1]
        yield host


@pytest.fixture
async def upstream() -> AsyncIterator[_FakeHost]:
    """Yield the upstream, which serves the pictures too unless a test says otherwise."""
    async with _serving() as host:
        yield host


@pytest.fixture
async def other() -> AsyncIterator[_FakeHost]:
    """Yield another host, which is not public."""
    async with _serving() as host:
        yield host


@pytest.fixture
def sink() -> FakeSink:
    return FakeSink(max_bytes=2_000_000, only_pictures=True)


def _picture(content: bytes, *, status: str = "200 OK", headers: str = "") -> bytes:
    return whole(content, content_type="image/png", status=status, headers=headers)


def _redirect(location: str) -> bytes:
    return whole(b"", content_type="text/plain", status="302 Found", headers=f"Location: {location}\r\n")


async def _draw(
    upstream: _FakeHost,
    sink: FakeSink,
    *urls: str,
    allowed_hosts: Sequence[str] = (),
    link_seconds: float = LONG,
    **more: Any,  # noqa: ANN401  (any setting of an upstream)
) -> UpstreamAnswer:
    """Return the result of an order whose response has these URLs."""
    body = json.dumps({"created": 1, "data": [{"url": url} for url in urls]}).encode()
    upstream.serve("/v1/images/generations", whole(body, content_type="application/json"))
    opened = open_adapter(f"{upstream.url}/v1", allowed_hosts=allowed_hosts, **more)
    adapter = replace(opened, links=replace(opened.links, timeout_seconds=link_seconds))
    try:
        return await adapter.draw(FOX, inputs=(), sink=sink)
    finally:
        await adapter.close()


async def _draw_nothing(upstream: _FakeHost, sink: FakeSink, *urls: str, link_seconds: float = LONG) -> None:
    """Order pictures that cannot be fetched: the answer is retained, and the order sent once."""
    with pytest.raises(core.PictureUnusableException):
        await _draw(upstream, sink, *urls, link_seconds=link_seconds)
    assert [item["url"] for item in json.loads(sink.kept_answer)["data"]] == list(urls)
    assert len(upstream.heads("POST")) == 1


async def test_pictures_of_the_own_host_are_unchanged(upstream: _FakeHost, sink: FakeSink) -> None:
    urls = [upstream.serve("/files/1.png", _picture(FIRST)), upstream.serve("/files/2.png", _picture(SECOND))]
    said = await _draw(upstream, sink, *urls, headers={"X-Region": "west"})
    assert sink.kept == [FIRST, SECOND]
    assert (said.facts, said.revised_prompts) == ({"created": 1}, (None, None))
    heads = upstream.heads("GET")
    assert len(heads) == len(urls)
    for head in heads:
        assert f"authorization: bearer {KEY}\r\n" in head
        assert "x-region: west\r\n" in head
    assert sink.kept_answer == b""


async def test_large_picture_is_complete(upstream: _FakeHost) -> None:
    """Larger than the limit of what the SDK reads of other responses."""
    sink, content = FakeSink(), pictures.noise_png(MOST_OTHER_BYTES + 1_000_000)
    await _draw(upstream, sink, upstream.serve("/1.png", _picture(content)))
    assert sink.kept == [content]


async def test_pictures_beyond_the_order_are_not_fetched(upstream: _FakeHost, sink: FakeSink) -> None:
    url = upstream.serve("/1.png", _picture(FIRST))
    await _draw(upstream, sink, url, url, url)
    assert len(sink.kept) == len(upstream.heads("GET")) == 2


async def test_relative_url_uses_the_upstreams_host(upstream: _FakeHost, sink: FakeSink) -> None:
    upstream.serve("/generated/1.png", _picture(FIRST))
    await _draw(upstream, sink, "/generated/1.png")
    assert sink.kept == [FIRST]


async def test_other_host_is_called_only_if_allowed(upstream: _FakeHost, other: _FakeHost, sink: FakeSink) -> None:
    url = other.serve("/1.png", _picture(FIRST))
    await _draw_nothing(upstream, sink, url)
    assert other.requests == []
    await _draw(upstream, sink, url, allowed_hosts=["127.0.0.1"])
    assert sink.kept == [FIRST]


async def test_other_host_never_gets_the_credential(upstream: _FakeHost, other: _FakeHost, sink: FakeSink) -> None:
    other.serve("/1.png", _picture(FIRST))
    url = upstream.serve("/1.png", _redirect(f"{other.url}/1.png"))
    await _draw(upstream, sink, url, allowed_hosts=["127.0.0.0/8"], headers={"api-key": "secret"})
    assert sink.kept == [FIRST]
    (head,) = other.heads("GET")
    assert "authorization" not in head
    assert "secret" not in head


@pytest.mark.parametrize(
    "url",
    [
        "http://169.254.169.254/latest/meta-data",
        "http://localhost:1/1.png",
        "https://10.0.0.1/1.png",
        "http://[::1]/1.png",
        "http://2130706433/1.png",
        "http://user:password@127.0.0.1/1.png",
        "file:///etc/passwd",
        "ftp://127.0.0.1/1.png",
        "gopher://127.0.0.1/1.png",
        "//127.0.0.1:1/1.png",
        "http://[/1.png",
        "http://a b/1.png",
        "http://x\\y/1.png",
        "javascript:alert(1)",
    ],
)
async def test_forbidden_url_is_not_called(url: str, upstream: _FakeHost, sink: FakeSink) -> None:
    await _draw_nothing(upstream, sink, url)
    assert upstream.heads("GET") == []


async def test_redirect_to_a_forbidden_url_is_not_followed(
    upstream: _FakeHost, other: _FakeHost, sink: FakeSink
) -> None:
    other.serve("/1.png", _picture(FIRST))
    await _draw_nothing(upstream, sink, upstream.serve("/1.png", _redirect(f"{other.url}/1.png")))
    assert other.requests == []


async def test_redirects_are_limited(upstream: _FakeHost, sink: FakeSink) -> None:
    await _draw_nothing(upstream, sink, upstream.serve("/1.png", _redirect("/1.png")))
    assert len(upstream.heads("GET")) == 3


async def test_broken_download_is_resumed(upstream: _FakeHost, sink: FakeSink) -> None:
    """In pieces of 1 MB: an incomplete piece is lost with the connection and requested again."""
    content = pictures.noise_png(1_900_000)
    start, length = 1024 * 1024, len(content)
    rest = _picture(
        content[start:], status="206 Partial Content", headers=f"Content-Range: bytes {start}-{length - 1}/{length}\r\n"
    )
    url = upstream.serve("/1.png", _picture(content)[: start + 500], rest)
    await _draw(upstream, sink, url)
    assert sink.kept == [content]
    assert f"range: bytes={start}-\r\n" in upstream.heads("GET")[1]


@pytest.mark.parametrize("status", ["200 OK", "206 Partial Content", "416 No"])
async def test_wrong_range_is_not_appended(status: str, upstream: _FakeHost) -> None:
    sink = FakeSink()
    content = pictures.noise_png(1_900_000)
    again = _picture(content, status=status, headers=f"Content-Range: bytes 0-{len(content) - 1}/{len(content)}\r\n")
    await _draw_nothing(upstream, sink, upstream.serve("/1.png", _picture(content)[: 1024 * 1024 + 500], again))
    assert sink.kept == []


@pytest.mark.parametrize("status", ["404 Not Yet", "500 No", "503 Busy", "429 Slow"])
async def test_temporary_failure_is_retried(status: str, upstream: _FakeHost, sink: FakeSink) -> None:
    failure = _picture(b"", status=status)
    await _draw(upstream, sink, upstream.serve("/1.png", failure, b"HTTP/1.1 200 OK\r\n", _picture(FIRST)))
    assert sink.kept == [FIRST]
    assert len(upstream.heads("GET")) == 3


@pytest.mark.parametrize(("status", "times"), [("404 Gone", 3), ("403 No", 1), ("410 Gone", 1), ("204 Nothing", 3)])
async def test_missing_picture_is_not_retried(
    status: str, times: int, upstream: _FakeHost, sink: FakeSink, caplog: pytest.LogCaptureFixture
) -> None:
    await _draw_nothing(upstream, sink, upstream.serve("/1.png?token=secret", _picture(b"", status=status)))
    assert len(upstream.heads("GET")) == times
    assert f"a picture cannot be fetched: its host responded with status {status[:3]}" in caplog.text
    assert "secret" not in caplog.text


async def test_html_page_is_rejected(upstream: _FakeHost, sink: FakeSink) -> None:
    await _draw_nothing(upstream, sink, upstream.serve("/1.png", _picture(b"<html>Sign in</html>")))
    assert len(upstream.heads("GET")) == 1


async def test_first_picture_is_delivered_if_the_second_fails(upstream: _FakeHost, sink: FakeSink) -> None:
    urls = [upstream.serve("/1.png", _picture(FIRST)), upstream.serve("/2.png", _picture(b"", status="410 Gone"))]
    await _draw_nothing(upstream, sink, *urls)
    assert sink.kept == [FIRST]


async def test_too_large_picture_is_not_read_to_its_end(upstream: _FakeHost, sink: FakeSink) -> None:
    """The sink takes 2 MB; an endless body must be cut off by its reader."""
    endless = b"HTTP/1.1 200 OK\r\n\r\n\x89PNG\r\n\x1a\n" + bytes(60_000_000)
    await _draw_nothing(upstream, sink, upstream.serve("/1.png", endless))
    assert len(sink.pictures[0].content) <= 2_000_000


async def test_silent_host_times_out(upstream: _FakeHost, sink: FakeSink) -> None:
    url = upstream.serve("/1.png", b"")
    await _draw_nothing(upstream, sink, url, link_seconds=SHORT)
    async with asyncio.timeout(LONG):
        await upstream.hang_up.wait()
    assert len(upstream.heads("GET")) == 1
