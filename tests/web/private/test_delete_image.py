"""DELETE /image/{guid}: row and picture are deleted permanently."""

import httpx2
import pytest

from tests.support.problems import assert_problem
from tests.support.server import RunningServer, TenantClient
from tests.web.builders import make_image

pytestmark = pytest.mark.usefixtures("upstream")


def test_deleted_image_is_removed_with_its_file(
    tenant: TenantClient, anonymous: httpx2.Client, server: RunningServer
) -> None:
    guid = make_image(tenant)["guid"]
    assert list(server.settings.images.rglob(f"{guid}*"))
    answer = tenant.http.delete(f"/image/{guid}")
    assert (answer.status_code, answer.content) == (204, b"")
    assert not list(server.settings.images.rglob(f"{guid}*"))
    for client in (tenant.http, anonymous):
        assert_problem(client.get(f"/image/{guid}"), 404, "image_not_found")
        assert_problem(client.get(f"/image/{guid}/content"), 404, "image_not_found")
    assert tenant.http.get("/image", params={"mine": "true"}).json() == []


def test_second_delete_is_not_found(tenant: TenantClient) -> None:
    guid = make_image(tenant)["guid"]
    assert tenant.http.delete(f"/image/{guid}").status_code == 204
    assert_problem(tenant.http.delete(f"/image/{guid}"), 404, "image_not_found")


def test_delete_keeps_other_images(tenant: TenantClient) -> None:
    kept, gone = make_image(tenant), make_image(tenant)
    assert tenant.http.delete(f"/image/{gone['guid']}").status_code == 204
    assert tenant.http.get(f"/image/{kept['guid']}").json() == kept
    assert tenant.http.get(f"/image/{kept['guid']}/content").status_code == 200


def test_image_with_missing_file_can_be_deleted(tenant: TenantClient, server: RunningServer) -> None:
    guid = make_image(tenant)["guid"]
    next(server.settings.images.rglob(f"{guid}*")).unlink()
    assert_problem(tenant.http.get(f"/image/{guid}/content"), 500, "picture_missing")
    assert tenant.http.delete(f"/image/{guid}").status_code == 204
