"""A hanging disk delays only the work that needs it."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pixyproxy.core.models.principal import Scope
from tests.faults.hanging_disk import HangingDisk, hanging_disk
from tests.support.identity import bearer, make_user, sign_in
from tests.support.problems import assert_problem
from tests.support.process import wait_until
from tests.support.server import RunningServer, make_settings, serving
from tests.web.builders import make_image

READERS = 60
"""More than there are threads for files."""


@pytest.fixture
def hanging(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[RunningServer, HangingDisk]]:
    """Yield a server whose files, except the database, are on a disk that may hang."""
    with hanging_disk(tmp_path, monkeypatch) as disk, serving(make_settings(tmp_path)) as server:
        server.hash_cheaply()
        yield server, disk
        disk.answers.set()


def test_work_without_files_continues_while_the_disk_hangs(hanging: tuple[RunningServer, HangingDisk]) -> None:
    server, disk = hanging
    tenant = server.new_tenant("acme", scopes=frozenset(Scope))
    with tenant.http as owner, server.client() as anonymous, ThreadPoolExecutor(READERS + 1) as threads:
        image = make_image(tenant)
        content = f"/image/{image['guid']}/content"
        account = make_user(owner)
        token = sign_in(anonymous, account)["access_token"]
        disk.hang()
        readers = [threads.submit(anonymous.get, content) for _ in range(READERS)]
        order = threads.submit(owner.post, "/image", json={"prompt": "another"})
        wait_until(lambda: disk.waiting > 0, what="the hanging")
        for _ in range(3):
            assert anonymous.get("/healthz").status_code == 200
            assert [each["guid"] for each in anonymous.get("/image").json()] == [image["guid"]]
            assert anonymous.get(f"/image/{image['guid']}").json() == image
            assert anonymous.get("/.well-known/jwks.json").status_code == 200
            assert owner.get("/me", headers=bearer(token)).status_code == 200
            assert owner.get("/generation").json()[0]["status"] == "stored"
        assert sign_in(anonymous, account)
        # An order could not be kept, so nothing is bought; a probe reports it as quickly.
        assert_problem(order.result(), 503, "storage_failed")
        assert_problem(anonymous.get("/readyz"), 503, "storage_failed")
        assert not any(reader.done() for reader in readers)
        disk.answers.set()
        assert {reader.result().status_code for reader in readers} == {200}
        assert owner.post("/image", json={"prompt": "after"}).status_code == 201
        assert anonymous.get("/readyz").status_code == 200
