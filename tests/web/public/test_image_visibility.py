"""A private picture is visible only to its tenant; for others it does not exist."""

import threading
import uuid
from collections.abc import Callable

import httpx2
import pytest

from pixyproxy.core.models.principal import Scope
from pixyproxy.core.models.tenant import Visibility
from tests.conftest import on_both_databases
from tests.support.problems import assert_problem, without_request_id
from tests.support.process import wait_until
from tests.support.server import RunningServer, TenantClient
from tests.web.builders import ABSENT_GUID, make_image, tenant_with

pytestmark = [pytest.mark.usefixtures("upstream"), on_both_databases]

SUFFIXES = ["", "/content"]
SHOWN: dict[str, Callable[[httpx2.Response], object]] = {
    "GET": without_request_id,
    "HEAD": lambda answer: (answer.status_code, answer.content),
}
"""The response to a method, without the request id."""


@pytest.mark.parametrize(("method", "suffix"), [("GET", ""), ("GET", "/content"), ("HEAD", "/content")])
def test_private_image_looks_absent_to_others(
    method: str, suffix: str, tenant: TenantClient, anonymous: httpx2.Client, server: RunningServer
) -> None:
    guid = make_image(tenant, visibility="private")["guid"]
    others = [server.new_tenant(str(uuid.uuid4())), tenant_with(server, str(uuid.uuid4()), *Scope)]
    assert tenant.http.request(method, f"/image/{guid}{suffix}").status_code == 200
    for client in (anonymous, *(other.http for other in others)):
        private = client.request(method, f"/image/{guid}{suffix}")
        absent = client.request(method, f"/image/{ABSENT_GUID}{suffix}")
        assert private.status_code == 404
        assert private.headers.keys() == absent.headers.keys()
        assert SHOWN[method](private) == SHOWN[method](absent)
    for other in others:
        other.http.close()


@pytest.mark.parametrize(
    "headers",
    [{"Range": "bytes=0-0"}, {"Range": "bytes=99999999-"}, {"If-None-Match": "*"}, {"Accept": "application/json"}],
    ids=str,
)
def test_no_request_header_reveals_private_picture(
    headers: dict[str, str], tenant: TenantClient, anonymous: httpx2.Client
) -> None:
    guid = make_image(tenant, visibility="private")["guid"]
    private = anonymous.get(f"/image/{guid}/content", headers=headers)
    assert_problem(private, 404, "image_not_found")
    absent = anonymous.get(f"/image/{ABSENT_GUID}/content", headers=headers)
    assert without_request_id(private) == without_request_id(absent)


def test_key_without_image_read_sees_only_public_images(server: RunningServer) -> None:
    generator = tenant_with(server, str(uuid.uuid4()), Scope.IMAGE_GENERATE)
    with generator.http:
        guid = make_image(generator, visibility="private")["guid"]
        assert_problem(generator.http.get(f"/image/{guid}"), 404, "image_not_found")


def test_wrong_key_is_not_served_as_anonymous(tenant: TenantClient, anonymous: httpx2.Client) -> None:
    guid = make_image(tenant, visibility="public")["guid"]
    for path in ("/image", f"/image/{guid}", f"/image/{guid}/content"):
        answer = anonymous.get(path, headers={"Authorization": "Bearer pxy_wrong"})
        assert_problem(answer, 401, "credential_invalid")


@pytest.mark.parametrize("default", Visibility)
def test_tenant_default_visibility_applies_if_request_has_none(
    default: Visibility, server: RunningServer, anonymous: httpx2.Client
) -> None:
    owner = server.new_tenant(str(uuid.uuid4()), visibility=default)
    with owner.http:
        assert make_image(owner)["visibility"] == default
        for wanted in Visibility:
            made = make_image(owner, visibility=str(wanted))
            assert made["visibility"] == wanted
            seen = anonymous.get(f"/image/{made['guid']}").status_code
            assert seen == (200 if wanted is Visibility.PUBLIC else 404)


def test_anonymous_readers_lose_picture_once_private_is_acknowledged(
    tenant: TenantClient, server: RunningServer
) -> None:
    guid = make_image(tenant, visibility="public")["guid"]
    acknowledged, enough = threading.Event(), threading.Event()
    before: list[int] = []
    after: list[int] = []

    def read(suffix: str) -> None:
        with server.client() as client:
            while not enough.is_set():
                late = acknowledged.is_set()
                status = client.get(f"/image/{guid}{suffix}").status_code
                (after if late else before).append(status)

    readers = [threading.Thread(target=read, args=(suffix,)) for suffix in SUFFIXES * 2]
    for reader in readers:
        reader.start()
    try:
        wait_until(lambda: len(before) >= 20)
        assert tenant.http.patch(f"/image/{guid}", json={"visibility": "private"}).status_code == 200
        acknowledged.set()
        wait_until(lambda: len(after) >= 40)
    finally:
        enough.set()
        for reader in readers:
            reader.join()
    assert 200 in before
    assert set(after) == {404}
