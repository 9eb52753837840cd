"""A read-only or full picture store: no picture is acknowledged, and reads continue."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx2
import pytest

from tests.support.pictures import noise_png
from tests.support.problems import assert_problem
from tests.support.process import new_api_key, running_server
from tests.support.server import UNLIMITED, RunningServer, TenantClient, make_settings, serving, upstream_settings
from tests.support.upstream import FakeUpstream
from tests.web.builders import make_image
from tests.web.envelope import assert_openai_error

READ_ONLY = """
set -e
kept=$1; shift
mount --bind "$kept" "$kept"
mkdir -p "$kept/little"
mount -t tmpfs -o size=64k tmpfs "$kept/little"
export TMPDIR="$kept/little"
mount -o remount,bind,ro /
exec "$@"
"""
"""A shell script that runs a command with a read-only root except for one folder."""


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Yield a file system of 4 MB; skip if mounting is not permitted."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("mounting is not permitted here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)  # noqa: S607  (the system's own)


def make_tenant(server: RunningServer) -> TenantClient:
    """Return a tenant with a picture that was made before the fault."""
    tenant = server.new_tenant("t")
    make_image(tenant, "before")
    return tenant


def assert_reads_work(http: httpx2.Client, expected: bytes) -> None:
    """Assert that only the earlier picture is listed, and its bytes are served."""
    (image,) = http.get("/image", params={"mine": "true"}).json()
    assert image["prompt"] == "before"
    assert http.get(f"/image/{image['guid']}/content").content == expected


def test_a_full_disk_acknowledges_nothing_and_reads_go_on(small_disk: Path, tmp_path: Path) -> None:
    picture = noise_png(1_500_000)
    with FakeUpstream(picture=picture) as upstream:
        settings = make_settings(
            tmp_path, images=small_disk / "images", max_picture_bytes=1_600_000, **upstream_settings(upstream)
        )
        with serving(settings) as server, closing(make_tenant(server).http) as http:
            (small_disk / "ballast").write_bytes(b"x" * 2_000_000)
            answer = http.post("/image", json={"prompt": "too much"}, headers={"Idempotency-Key": "k"})
            assert_problem(answer, 507, "storage_full")
            assert_reads_work(http, picture)
            assert len([path for path in small_disk.rglob("*") if path.is_file()]) == 2
            # A picture that could not be kept is not bought, so the same key may buy it later.
            assert len(upstream.requests) == 1
            (small_disk / "ballast").unlink()
            again = http.post("/image", json={"prompt": "too much"}, headers={"Idempotency-Key": "k"})
            assert again.status_code == 201
            assert len(upstream.requests) == 2


def test_readyz_reports_a_full_disk(small_disk: Path, tmp_path: Path) -> None:
    settings = make_settings(tmp_path, images=small_disk / "images", max_picture_bytes=1_000_000)
    with serving(settings) as server, server.client() as client:
        assert client.get("/readyz").status_code == 200
        _fill(small_disk)
        assert_problem(client.get("/readyz"), 507, "storage_full")
        assert client.get("/healthz").status_code == 200


def test_an_upload_without_space_is_rejected_and_leaves_no_files(small_disk: Path, tmp_path: Path) -> None:
    with FakeUpstream() as upstream:
        settings = make_settings(
            tmp_path,
            data_dir=small_disk / "var",
            database_url=f"sqlite:///{tmp_path / 'pixyproxy.db'}",
            **upstream_settings(upstream),
        )
        with serving(settings) as server, closing(server.new_tenant("t").http) as http:

            def edit(byte_size: int) -> httpx2.Response:
                files = {"image": noise_png(byte_size)}
                return http.post("/v1/images/edits", data={"prompt": "a hat"}, files=files)

            assert edit(1_500_000).status_code == 200
            assert_openai_error(edit(5_000_000), 507, "storage_full")
            assert len(upstream.requests) == 1
            spool = small_disk / "var" / "spool"
            assert [path for path in spool.rglob("*") if path.is_file() and path.suffix != ".lock"] == []
            assert edit(1_500_000).status_code == 200


def test_an_edit_works_with_a_read_only_root_and_little_temporary_space(tmp_path: Path) -> None:
    settings = make_settings(tmp_path, **UNLIMITED)
    api_key = new_api_key(settings)
    isolated = ["unshare", "--mount", "sh", "-c", READ_ONLY, "sh", str(tmp_path)]
    if subprocess.run([*isolated, "true"], check=False, capture_output=True).returncode:
        pytest.skip("mounting is not permitted here")
    with (
        running_server(settings, tmp_path, within=isolated) as server,
        server.client(api_key) as http,
    ):
        files = {"image": noise_png(1_500_000)}
        edited = http.post("/v1/images/edits", data={"prompt": "a hat", "size": "96x64"}, files=files)
        assert edited.status_code == 200, edited.text[:500]


def test_a_missing_store_acknowledges_nothing(tmp_path: Path) -> None:
    with FakeUpstream() as upstream:
        settings = make_settings(tmp_path, **upstream_settings(upstream))
        with serving(settings) as server, closing(make_tenant(server).http) as http:
            # A file in place of the folder has the same effect as a missing mount or a wrong path.
            settings.images.rename(tmp_path / "elsewhere")
            settings.images.write_text("no folder")
            answer = http.post("/image", json={"prompt": "lost?"})
            assert_problem(answer, 503, "storage_failed")
            assert answer.headers["retry-after"] == "30"
            assert_problem(http.get("/readyz"), 503, "storage_failed")
            (image,) = http.get("/image", params={"mine": "true"}).json()
            assert image["prompt"] == "before"
            assert_problem(http.get(f"/image/{image['guid']}/content"), 503, "storage_failed")
            settings.images.unlink()
            (tmp_path / "elsewhere").rename(settings.images)
            assert http.get(f"/image/{image['guid']}/content").status_code == 200
            assert http.post("/image", json={"prompt": "after"}).status_code == 201


def _fill(folder: Path) -> None:
    """Leave no free block."""
    with (folder / "ballast").open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"x" * 4096)
        except OSError:
            os.fsync(file.fileno())
