"""Every file operation of a picture fails, once or permanently: no partial pictures, no leftover files."""

import errno
import hashlib
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from pixyproxy.core.settings import Settings
from tests.faults.failing_disk import FailingDisk, failing_disk
from tests.support.pictures import noise_png
from tests.support.process import wait_until
from tests.support.server import RunningServer, TenantClient, make_settings, serving, upstream_settings
from tests.support.upstream import FakeUpstream

MOST_OPERATIONS = 60
"""More than a picture takes. If fewer are needed, nothing fails and the test ends."""


@pytest.fixture
def settings(tmp_path: Path, upstream: FakeUpstream) -> Settings:
    """Return settings that keep everything below one folder."""
    upstream.picture = noise_png(50_000, seed=4)
    return make_settings(tmp_path, images_per_minute=10_000, **upstream_settings(upstream))


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[FailingDisk]:
    """Yield the disk of spool and store."""
    with failing_disk(tmp_path) as disk:
        yield disk


@pytest.mark.parametrize(
    ("code", "lasts", "afterwards"),
    [
        (
            errno.EIO,
            False,
            {
                # Nothing was bought: the same order buys it once the disk works.
                ("storage_failed", 0): "created",
                # It was bought and could not be received: the same order buys no other.
                ("storage_failed", 1): "generation_unknown",
                # It was acknowledged: the same order returns the same picture.
                ("created", 1): "created",
            },
        ),
        (
            errno.ENOSPC,
            True,
            {
                ("storage_full", 0): "created",
                ("storage_full", 1): "generation_unknown",
                # It was received and cannot be moved to the store: it is available once the disk works.
                ("record_pending", 1): "created",
                ("created", 1): "created",
            },
        ),
    ],
    ids=["EIO once", "ENOSPC lasting"],
)
def test_no_failed_file_operation_breaks_a_promise(  # noqa: PLR0913, PLR0917  (a table, and where it happens)
    code: int,
    lasts: bool,  # noqa: FBT001  (pytest's way)
    afterwards: dict[tuple[str, int], str],
    disk: FailingDisk,
    settings: Settings,
    upstream: FakeUpstream,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Repeat the order after a failure and check the result.

    ``afterwards`` maps the response and the number of pictures bought by then to the result of the repeated order.
    """
    monkeypatch.setattr("pixyproxy.service.private.generation.engine.FIRST_RETRY_SECONDS", 0.01)
    met: dict[tuple[str, int], list[tuple[httpx2.Response, httpx2.Response]]] = defaultdict(list)
    with serving(settings) as server:
        tenant = server.new_tenant("t")
        with tenant.http:
            for number in range(1, MOST_OPERATIONS):
                prompt, before = f"picture-{number}", spooled(settings)
                disk.fail(number, code, lasts=lasts)
                answer = order(tenant.http, prompt)
                # The last operations are those of the cleanup after the response.
                wait_until(lambda: disk.has_failed or spooled(settings) <= before, what="the cleaning")  # noqa: B023
                failed = disk.has_failed
                disk.mend()
                wait_until(lambda: is_settled(tenant.http), what="the end of the generation")
                outcome = (outcome_of(answer), upstream.posts_by_prompt[prompt])
                again = order(tenant.http, prompt)
                assert outcome_of(again) == afterwards[outcome]
                assert upstream.posts_by_prompt[prompt] == 1
                met[outcome].append((answer, again))
                if not failed:
                    break
            assert not failed, "a picture took more operations than that"
            assert met.keys() == afterwards.keys()
            assert [answer.json() for answer, _ in met["created", 1]] == [
                again.json() for _, again in met["created", 1]
            ]
            kept = [again for pairs in met.values() for _, again in pairs if outcome_of(again) == "created"]
            assert_pictures_are_whole(tenant.http, count=len(kept))
    monkeypatch.setattr("pixyproxy.service.private.generation.recovery.INTERVAL_SECONDS", 0.1)
    # The next process removes files that could not be removed.
    with serving(settings) as server:
        assert_nothing_is_left(server, tenant)


def assert_pictures_are_whole(client: httpx2.Client, *, count: int) -> None:
    """Assert that the tenant has this many pictures, each with the bytes that its record names."""
    images = client.get("/image", params={"mine": "true", "limit": 100}).json()
    contents = [client.get(image["content_url"]).content for image in images]
    assert [image["sha256"] for image in images] == [hashlib.sha256(content).hexdigest() for content in contents]
    assert len(images) == count


def order(client: httpx2.Client, prompt: str) -> httpx2.Response:
    """Return the response to an order with its own Idempotency-Key."""
    return client.post("/image", json={"prompt": prompt}, headers={"Idempotency-Key": prompt})


def outcome_of(answer: httpx2.Response) -> str:
    """Return the code of the error, or ``created``."""
    return str(answer.json().get("code", "created"))


def is_settled(client: httpx2.Client) -> bool:
    """Return whether the latest generation, if any, has finished."""
    latest = client.get("/generation", params={"limit": 1}).raise_for_status().json()
    return {each["status"] for each in latest} <= {"stored", "failed", "unknown"}


def assert_nothing_is_left(server: RunningServer, tenant: TenantClient) -> None:
    """Assert that the store holds only recorded pictures, and the spool only the lock of the running process."""

    def swept() -> bool:
        with server.client(tenant.api_key) as client:
            recorded = {image["guid"] for image in client.get("/image", params={"mine": "true", "limit": 100}).json()}
        stored = {path.stem for path in server.settings.images.rglob("*") if path.is_file()}
        return stored == recorded and not spooled(server.settings)

    wait_until(swept, what="the sweep")


def spooled(settings: Settings) -> set[Path]:
    """Return the files of the spool without the locks of processes."""
    found = (settings.data_dir / "spool").rglob("*")
    return {path for path in found if path.is_file() and path.suffix != ".lock"}
