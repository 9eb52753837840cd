"""Every file operation on the way of a picture fails once, or from then on: no half pictures, no files left behind."""

import errno
import hashlib
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
"""More than a picture takes; where it takes fewer, nothing fails and the test ends."""


@pytest.fixture
def settings(tmp_path: Path, upstream: FakeUpstream) -> Settings:
    """A server's, below one folder."""
    upstream.picture = noise_png(50_000, seed=4)
    return make_settings(tmp_path, images_per_minute=10_000, **upstream_settings(upstream))


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[FailingDisk]:
    """The disk that spool and store are on."""
    with pytest.MonkeyPatch.context() as patch, failing_disk(tmp_path, patch) as disk:
        yield disk


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC], ids=errno.errorcode.get)
@pytest.mark.parametrize("lasts", [False, True], ids=["once", "lasting"])
def test_no_file_operation_that_fails_breaks_a_promise(
    code: int,
    lasts: bool,  # noqa: FBT001  (pytest's way)
    disk: FailingDisk,
    settings: Settings,
    upstream: FakeUpstream,
) -> None:
    with serving(settings) as server:
        tenant = server.new_tenant("t")
        with tenant.http:
            for number in range(1, MOST_OPERATIONS):
                before = spooled(settings)
                disk.fail(number, code, lasts=lasts)
                answer = order(tenant.http, f"picture-{number}")
                # The last operations are those of cleaning up, behind the answer.
                wait_until(lambda: disk.has_failed or spooled(settings) <= before, what="the cleaning")  # noqa: B023
                failed = disk.has_failed
                disk.mend()
                assert_settled(tenant.http)
                assert_promise_is_kept(answer, tenant.http, upstream, f"picture-{number}")
                if not failed:
                    break
            else:
                pytest.fail("a picture took more operations than that")
        assert number > 5, disk.operations
    # What could not be removed is the next process's to remove.
    with serving(settings) as server:
        assert_nothing_is_left(server, tenant)


def order(client: httpx2.Client, prompt: str) -> httpx2.Response:
    """The answer to an order under a key of its own."""
    return client.post("/image", json={"prompt": prompt}, headers={"Idempotency-Key": prompt})


def assert_settled(client: httpx2.Client) -> None:
    """Every generation comes to an end."""

    def over() -> bool:
        (latest,) = client.get("/generation", params={"limit": 1}).json() or [{"status": "failed"}]
        return latest["status"] in {"stored", "failed", "unknown"}

    wait_until(over, what="the end of the generation")


def assert_promise_is_kept(answer: httpx2.Response, client: httpx2.Client, upstream: FakeUpstream, prompt: str) -> None:
    """What was acknowledged is there, and whatever the answer, a repetition buys nothing that was bought already."""
    assert answer.status_code in {201, 502, 503, 507}, answer.text
    bought = upstream.posts_by_prompt[prompt]
    again = order(client, prompt)
    if answer.status_code == 201:
        assert again.json() == answer.json()
    elif bought:
        assert again.status_code in {201, 409, 503}, again.text
    if bought:
        assert upstream.posts_by_prompt[prompt] == bought == 1
    if again.status_code == 201:
        content = client.get(again.json()["content_url"]).content
        assert hashlib.sha256(content).hexdigest() == again.json()["sha256"]


def assert_nothing_is_left(server: RunningServer, tenant: TenantClient) -> None:
    """The store holds what is recorded, and the spool nothing but the lock of the process that runs."""

    def swept() -> bool:
        with server.client(tenant.api_key) as client:
            recorded = {image["guid"] for image in client.get("/image", params={"mine": "true", "limit": 100}).json()}
        stored = {path.stem for path in server.settings.images.rglob("*") if path.is_file()}
        return stored == recorded and not spooled(server.settings)

    wait_until(swept, what="the sweep")


def spooled(settings: Settings) -> set[Path]:
    """The files of the spool, but for the locks of processes."""
    found = (settings.data_dir / "spool").rglob("*")
    return {path for path in found if path.is_file() and path.suffix != ".lock"}
