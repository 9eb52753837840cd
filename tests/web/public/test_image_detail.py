"""GET /image/{guid}: every field of ImageDetail, and the underlying row."""

import hashlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import httpx2
import pytest
from sqlalchemy import create_engine, make_url, text

from tests.support.pictures import gif, jpeg, webp
from tests.support.problems import assert_problem
from tests.support.server import RunningServer, TenantClient
from tests.support.upstream import FakeUpstream
from tests.web.builders import ABSENT_GUID, make_image

SEED_COLUMNS = ("guid", "filename", "prompt", "created_at", "updated_at")
"""The columns of the documents' table, beside ``id``."""


def test_every_field_describes_the_picture(
    tenant: TenantClient, anonymous: httpx2.Client, server: RunningServer, upstream: FakeUpstream
) -> None:
    upstream.picture = jpeg(640, 480)
    before = datetime.now(UTC) - timedelta(seconds=2)
    guid = make_image(tenant, "A red fox, snow", output_format="jpeg", model="some-model", visibility="public")["guid"]
    detail = anonymous.get(f"/image/{guid}").json()
    created, updated = (datetime.fromisoformat(detail.pop(name)) for name in ("created_at", "updated_at"))
    assert before < created <= datetime.now(UTC) + timedelta(seconds=1)
    assert updated == created
    assert detail == {
        "guid": guid,
        "prompt": "A red fox, snow",
        "prompt_truncated": False,
        "filename": f"a-red-fox-snow-{guid[:8]}.jpg",
        "visibility": "public",
        "media_type": "image/jpeg",
        "width": 640,
        "height": 480,
        "byte_size": len(upstream.picture),
        "sha256": hashlib.sha256(upstream.picture).hexdigest(),
        "model": "some-model",
        "content_url": f"{server.url}/image/{guid}/content",
    }


def test_post_response_equals_details(tenant: TenantClient, anonymous: httpx2.Client, upstream: FakeUpstream) -> None:
    made = make_image(tenant, "the same", filename="fox.png")
    assert anonymous.get(f"/image/{made['guid']}").json() == made
    assert len(upstream.requests) == 1


@pytest.mark.parametrize(
    ("draw", "media_type", "extension"),
    [(jpeg, "image/jpeg", ".jpg"), (webp, "image/webp", ".webp"), (gif, "image/gif", ".gif")],
)
def test_media_type_comes_from_bytes_not_from_order(
    draw: Callable[[int, int], bytes], media_type: str, extension: str, tenant: TenantClient, upstream: FakeUpstream
) -> None:
    upstream.picture = draw(64, 32)
    detail = make_image(tenant, output_format="png")
    assert (detail["media_type"], detail["width"], detail["height"]) == (media_type, 64, 32)
    assert detail["filename"].endswith(extension)
    assert tenant.http.get(detail["content_url"]).headers["content-type"] == media_type


@pytest.mark.usefixtures("upstream")
def test_guid_is_case_insensitive(tenant: TenantClient, anonymous: httpx2.Client) -> None:
    made = make_image(tenant)
    assert anonymous.get(f"/image/{made['guid'].upper()}").json() == made


@pytest.mark.usefixtures("upstream")
def test_database_has_documented_columns(tenant: TenantClient, server: RunningServer) -> None:
    made = make_image(tenant, "Füchse 🦊 im Schnee", filename="füchse 🦊.png")
    url = make_url(server.settings.effective_database_url.get_secret_value())
    engine = create_engine(url.set(drivername="mysql+mysqlconnector") if url.drivername == "mysql" else url)
    try:
        with engine.connect() as connection:
            statement = text(f"SELECT id, {', '.join(SEED_COLUMNS)} FROM images WHERE guid = :guid")
            row = connection.execute(statement, {"guid": made["guid"]}).mappings().one()
    finally:
        engine.dispose()
    assert isinstance(row["id"], int)
    assert {name: row[name] for name in ("guid", "filename", "prompt")} == {
        name: made[name] for name in ("guid", "filename", "prompt")
    }
    assert row["created_at"] is not None
    assert row["updated_at"] is not None
    assert "id" not in made
    assert "tenant_id" not in made


@pytest.mark.usefixtures("upstream")
def test_host_header_cannot_inject_markup_into_content_url(
    tenant: TenantClient, anonymous: httpx2.Client, server: RunningServer
) -> None:
    made = make_image(tenant)
    answer = anonymous.get(f"/image/{made['guid']}", headers={"Host": "evil.test/<script>"})
    assert answer.json()["content_url"] == f"{server.url}/image/{made['guid']}/content"


def test_unknown_guid_is_not_found(anonymous: httpx2.Client) -> None:
    assert_problem(anonymous.get(f"/image/{ABSENT_GUID}"), 404, "image_not_found")
