"""``pixyproxy token`` and ``keys``: tokens issued by operators, and the keys that sign them."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from tests.cli.conftest import Place
from tests.support.keys import write_former_file
from tests.support.problems import assert_problem
from tests.support.server import RunningServer, make_settings, serving
from tests.support.tokens import KEY, PEM

KEY_ID = r"[A-Za-z0-9_-]{43}"
PUBLIC_URL = "https://pictures.example.com"


@pytest.fixture(params=[None, PUBLIC_URL], ids=["at its own address", "at a public one"])
def serving_place(request: pytest.FixtureRequest, place: Place) -> Iterator[tuple[Place, RunningServer]]:
    """Provide a place with a tenant and a running server; commands share only its settings."""
    settings = make_settings(place.folder, public_url=request.param)
    with serving(settings) as server:
        where = Place(place.folder, settings)
        where.succeed("tenant", "create", "acme")
        yield where, server


def test_issued_token_is_valid_at_the_running_server(serving_place: tuple[Place, RunningServer]) -> None:
    place, server = serving_place
    issued = place.load("token", "issue", "--tenant", "acme")
    assert (issued["token_type"], issued["expires_in"]) == ("Bearer", 3600)
    assert issued["scope"] == "image:generate image:manage image:read"
    with server.client(issued["access_token"]) as client:
        me = client.get("/me").json()
        assert sorted(me["scopes"]) == ["image:generate", "image:manage", "image:read"]
        assert client.post("/image", json={"prompt": "a fox", "size": "64x64"}).status_code == 201
        (tenant,) = place.load("tenant", "list")
        assert tenant["guid"] in str(me)
        place.succeed("keys", "rotate", "--now")
        with server.client(_only_line(place, "--tenant", tenant["guid"], "--scope", "image:read")) as another:
            assert another.get("/me").json()["scopes"] == ["image:read"]
        assert_problem(client.get("/me"), 401, "credential_invalid")


@pytest.mark.parametrize("other", ["", "https://other.example.com"])
def test_server_with_a_public_url_rejects_tokens_for_another(other: str, place: Place) -> None:
    place.succeed("tenant", "create", "acme")
    token = place.succeed("token", "issue", "--tenant", "acme", PIXYPROXY_PUBLIC_URL=other).strip()
    with serving(make_settings(place.folder, public_url=PUBLIC_URL)) as server, server.client(token) as client:
        assert_problem(client.get("/me"), 401, "credential_invalid")


def test_token_has_the_requested_scopes_and_lifetime(place: Place) -> None:
    place.succeed("bootstrap")
    issued = place.load("token", "issue", "--scope", "admin", "--scope", "usage:read", "--expires-in", "60")
    assert (issued["scope"], issued["expires_in"]) == ("admin usage:read", 60)
    assert place.fail("token", "issue", "--expires-in", "86401").startswith("expires_in: ")
    place.succeed("tenant", "update", "default", "--status", "suspended")
    assert place.fail("token", "issue") == "This tenant is suspended. Ask the operator of this server.\n"
    told = place.succeed("audit", "list", "--json")
    assert told.count("token.issued") == 1
    assert issued["access_token"] not in told


def test_new_signing_key_is_published_before_it_signs(place: Place) -> None:
    (first,) = place.succeed("keys", "list").splitlines()
    assert re.fullmatch(KEY_ID, first)
    rotated = re.fullmatch(
        rf"Key ({KEY_ID}) signs from (\d+-\d+-\d+ \d+:\d+:\d+) UTC.\n", place.succeed("keys", "rotate")
    )
    assert rotated is not None
    ahead = datetime.fromisoformat(f"{rotated[2]}+00:00") - datetime.now(UTC)
    assert 0 <= 600 - ahead.total_seconds() < 60
    published = place.load("keys", "list")
    assert [key["kid"] for key in published] == [first, rotated[1]]
    assert {(key["kty"], key["crv"], key["alg"], "d" in key) for key in published} == {("EC", "P-256", "ES256", False)}
    place.succeed("keys", "rotate", "--now")
    (left,) = place.succeed("keys", "list").splitlines()
    assert left not in {first, rotated[1]}
    entries = place.load("audit", "list", "--action", "signing_keys.rotated")
    assert [entry["details"] for entry in entries] == [{"at_once": "true"}, {"at_once": "false"}]


def test_keys_of_the_setting_cannot_be_rotated(place: Place) -> None:
    told = place.fail("keys", "rotate", PIXYPROXY_SIGNING_KEYS=PEM)
    assert told.startswith("The signing keys come from PIXYPROXY_SIGNING_KEYS, so rotate them there")
    assert "PRIVATE KEY" not in told
    (line,) = place.fail("keys", "list", PIXYPROXY_SIGNING_KEYS="hunter2").splitlines()
    assert line.startswith("PIXYPROXY_SIGNING_KEYS must contain only EC P-256 private keys in PEM")
    assert "hunter2" not in line


def test_damaged_key_file_is_reported_in_one_sentence(place: Place) -> None:
    file = write_former_file(place.settings.data_dir, [KEY])
    file.write_text(file.read_text()[:100])
    for command in (("keys", "list"), ("token", "issue")):
        (line,) = place.fail(*command).splitlines()
        assert line.startswith(f"{file} is not a valid file of signing keys.")
        assert "PRIVATE" not in line


def _only_line(place: Place, *options: str) -> str:
    """Return the token that a command prints alone on a line, as shell scripts need it."""
    (line,) = place.succeed("token", "issue", *options).splitlines()
    return line
