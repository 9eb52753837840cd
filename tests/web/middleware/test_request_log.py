"""The request log of a real server process: two lines per request, without secrets."""

import contextlib
import json
import random
import re
from collections import Counter, defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import pytest

from pixyproxy.core.settings import Settings
from tests.support import upstream as fake
from tests.support.api_keys import secret_of
from tests.support.process import ServerProcess, new_api_key, running_server, wait_until
from tests.support.raw_http import abandon, request_bytes
from tests.support.scale import scaled
from tests.support.server import make_settings, upstream_settings
from tests.support.upstream import FakeUpstream
from tests.web.builders import ABSENT_GUID

RECORD = re.compile(
    r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} (?:INFO|WARNING|ERROR) (?P<id>-|[A-Za-z0-9.-]+-\d{8}T\d{6}\.\d{6}-\d+)"
    r" \[\d+\] \[(?P<name>\w+):\d+\] (?P<message>.*)"
)
FORGED = "2026-11-21 09:15:02,123 INFO forged-20261121T091502.123456-1 [1] [forged:1] REQUEST START"
NASTY = [
    f"zebra\r\n{FORGED}",
    f"zebra\u2028{FORGED}",
    f"zebra\u2029{FORGED}\x85{FORGED}",
    "zebra \x1b[31mred\x1b[0m \x9b31m",
    "zebra \u202egnihtemos",
]
AT_ONCE = 50
Send = Callable[[ServerProcess, httpx2.Client], object]


def post(prompt: str, **options: str) -> Send:
    """Return a request for a picture."""
    return lambda _server, client: client.post("/image", json={"prompt": prompt, **options})


def get(target: str) -> Send:
    """Return a request for a path."""
    return lambda _server, client: client.get(target)


def cut(request: bytes, *, after: int | None = None) -> Send:
    """Return a request that disconnects after its first part."""
    return lambda server, _client: abandon(server.url, request[:after])


def requests_of(api_key: str, rng: random.Random) -> list[tuple[str | None, Send]]:
    """Return 1,000 requests, each with the endpoint expected in the log; None for incomplete requests."""
    headers = {"Authorization": f"Bearer {api_key}", "Content-Type": "application/json"}
    order = request_bytes("POST", "/image", headers=headers, body=b'{"prompt": "a zebra that nobody waits for"}')
    bad = {"Authorization": "Bearer pxy_bad"}
    large = b" " * 1_100_000
    kinds: list[tuple[int, str | None, Send]] = [
        (100, "create_image", post("a zebra")),
        *[(8, "create_image", post(nasty)) for nasty in NASTY],
        (40, "create_image", post("zebra " * 10_000)),
        (20, "create_image", lambda _s, client: client.post("/image", content=large, headers=headers)),
        (30, "create_image", post("a zebra", zebra="unknown field")),
        (
            30,
            "create_image",
            lambda _s, c: c.post("/image", json={"prompt": "zebra"}, headers=bad),
        ),
        (200, "list_images", get("/image?prompt=zebra&limit=2")),
        (30, "list_images", get("/image?limit=1000")),
        (30, "list_images", get("/image?zebra%0d%0a" + FORGED.replace(" ", "%20") + "=1")),
        (100, "get_image", get(f"/image/{ABSENT_GUID}")),
        (30, "get_image", lambda _s, c: c.get("/image/1", headers={"User-Agent": "zebra \x1b[31m"})),
        (60, "get_image_content", get(f"/image/{ABSENT_GUID}/content")),
        (60, "answer_exception", get("/zebra%0d%0a%1b%5b31m")),
        (50, "list_images", lambda _s, client: client.put("/image", json={})),
        (50, "healthz", get("/healthz")),
        (30, None, cut(order, after=60)),
        (40, "create_image", cut(order, after=-10)),
        (40, "create_image", cut(order)),
        (20, "list_images", cut(request_bytes("GET", "/image"))),
    ]
    listed = [(name, send) for count, name, send in kinds for _ in range(scaled(count // 5, count))]
    rng.shuffle(listed)
    return listed


def send_all(server: ServerProcess, api_key: str, listed: list[tuple[str | None, Send]]) -> None:
    """Send the requests, 50 at a time."""
    with (
        httpx2.Client(
            base_url=server.url,
            headers={"Authorization": f"Bearer {api_key}"},
            timeout=60,
            limits=httpx2.Limits(max_connections=AT_ONCE),
        ) as client,
        ThreadPoolExecutor(AT_ONCE) as pool,
    ):
        list(pool.map(lambda request: request[1](server, client), listed))


def quiet_position(server: ServerProcess) -> int:
    """Return the length of the log when all its requests have ended: END may follow the client's response."""

    def ended() -> bool:
        log = server.log.read_bytes()
        return log.count(b"REQUEST START") == log.count(b"REQUEST END") > 0

    wait_until(ended, what="the end of the request that checked the server")
    return server.log.stat().st_size


def logged_since(server: ServerProcess, start: int) -> str:
    """Return the log since a position, when all its requests have ended."""

    def ended() -> bool:
        text = server.log.read_bytes()[start:].decode()
        return text.endswith("\n") and text.count("REQUEST START") == text.count("REQUEST END") > 0

    with contextlib.suppress(TimeoutError):
        wait_until(ended, what="the end of every request")
    text = server.log.read_bytes()[start:].decode()
    assert unfinished(text) == []
    return text


def unfinished(text: str) -> list[str]:
    """Return the START lines of requests without END."""
    ended = {line.split()[3] for line in text.splitlines() if line.endswith("REQUEST END")}
    return [line for line in text.splitlines() if line.endswith("REQUEST START") and line.split()[3] not in ended]


def process_settings(folder: Path, upstream: FakeUpstream, **overrides: object) -> Settings:
    """Return settings of a server that calls the fake upstream, with effectively no limits."""
    return make_settings(folder, images_per_minute=100_000, **upstream_settings(upstream), **overrides)


def test_every_request_has_two_log_lines_without_secrets(tmp_path: Path) -> None:
    with FakeUpstream(delay=0.05) as upstream:
        settings = process_settings(tmp_path, upstream)
        api_key = new_api_key(settings)
        refusals = (fake.MODERATED, fake.SERVER_ERROR, fake.CONFLICT)
        for behaviour in (*refusals, fake.HTML, fake.CUT) * 4:
            upstream.behave_once(behaviour)
        with running_server(settings, tmp_path) as server:
            start = quiet_position(server)
            listed = requests_of(api_key, random.Random(1))
            assert len(listed) >= scaled(190, 1_000)
            send_all(server, api_key, listed)
            complete = [name for name, _ in listed if name is not None]
            wait_until(
                lambda: server.log.read_bytes()[start:].count(b"REQUEST END\n") >= len(complete),
                seconds=60,
                what="every request",
            )
            text = logged_since(server, start)
    lines = defaultdict(list)
    assert [line for line in text.splitlines() if RECORD.fullmatch(line) is None] == []
    for record in map(RECORD.fullmatch, text.splitlines()):
        if record is not None and record["message"].startswith("REQUEST"):
            lines[record["id"]].append((record["message"], record["name"]))
    for messages in lines.values():
        assert [message for message, _ in messages] == ["REQUEST START", "REQUEST END"]
        assert len({name for _, name in messages}) == 1
    assert Counter(messages[0][1] for messages in lines.values()) == Counter(complete)
    for secret in (api_key, secret_of(api_key), "pxy_", "zebra", upstream.api_key, "forged", "\x1b"):
        assert secret not in text
    assert "upstream_failed" in text
    for words in (*(refusal.message for refusal in refusals), "A proxy's page"):
        assert words not in text


def test_json_lines_have_the_same_fields(tmp_path: Path) -> None:
    with FakeUpstream() as upstream:
        settings = process_settings(tmp_path, upstream, log_format="json")
        api_key = new_api_key(settings)
        with running_server(settings, tmp_path) as server, server.client(api_key) as client:
            start = quiet_position(server)
            answers = [client.post("/image", json={"prompt": nasty}) for nasty in NASTY]
            answers += [client.get("/image"), client.get("/nowhere")]
            wait_until(lambda: server.log.read_bytes()[start:].count(b"REQUEST END") >= len(answers))
            text = logged_since(server, start)
    records = [json.loads(line) for line in text.splitlines()]
    for answer in answers:
        own = [record for record in records if record["request_id"] == answer.headers["x-request-id"]]
        assert [record["message"] for record in own] == ["REQUEST START", "REQUEST END"]
        assert own[0].keys() == {"time", "level", "request_id", "thread_id", "function", "line", "message"}
    assert [record["function"] for record in records[-4:]] == ["list_images"] * 2 + ["answer_exception"] * 2
    assert "zebra" not in text
    assert secret_of(api_key) not in text


@pytest.mark.usefixtures("upstream")
def test_response_has_request_id(anonymous: httpx2.Client) -> None:
    ids = [anonymous.get("/healthz", headers={"X-Request-ID": "mine"}).headers["x-request-id"] for _ in range(3)]
    assert len(set(ids)) == 3
    assert all(re.fullmatch(r"[A-Za-z0-9.-]+-\d{8}T\d{6}\.\d{6}-\d+", request_id) for request_id in ids)
