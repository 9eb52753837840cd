"""A picture sent to the client is never fully in memory."""

from pathlib import Path

from tests.support import pictures
from tests.support.process import ServerProcess, new_api_key, running_server
from tests.support.server import UNLIMITED, make_settings, upstream_settings
from tests.support.upstream import FakeUpstream

PICTURE_BYTES = 60_000_000
MOST_GROWTH_BYTES = 3_000_000


def resident_bytes(server: ServerProcess) -> int:
    """Return the peak memory of the process."""
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM:"))


def test_picture_of_60_mb_takes_little_memory(tmp_path: Path) -> None:
    picture = pictures.noise_png(PICTURE_BYTES)
    with FakeUpstream() as upstream:
        settings = make_settings(tmp_path, **UNLIMITED, **upstream_settings(upstream))
        api_key = new_api_key(settings)
        with running_server(settings, tmp_path) as server, server.client(api_key, timeout=60) as client:

            def ask(order: str) -> int:
                headers = {"Idempotency-Key": order}
                answer = client.post("/v1/images/generations", json={"prompt": "a red fox"}, headers=headers)
                assert answer.status_code == 200, answer.text[:500]
                return len(answer.content)

            def read_as_json() -> int:
                newest = client.get("/image", params={"limit": 1}).json()[0]["content_url"]
                answer = client.get(newest, headers={"Accept": "application/json"})
                assert answer.headers["content-type"] == "application/json"
                return len(answer.content)

            # Small pictures first, to load everything needed; then the large one, received and sent.
            for number in range(3):
                ask(f"small-{number}")
                read_as_json()
            upstream.picture = picture
            before = resident_bytes(server)
            assert ask("large") > PICTURE_BYTES
            received = resident_bytes(server)
            assert ask("large") > PICTURE_BYTES
            answered = resident_bytes(server)
            assert read_as_json() > PICTURE_BYTES
            read = resident_bytes(server)
    assert read - answered < MOST_GROWTH_BYTES
    assert answered - received < MOST_GROWTH_BYTES
    assert received - before < PICTURE_BYTES / 2
