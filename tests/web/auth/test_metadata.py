"""The well-known documents: accurate, cacheable, and without private keys."""

from pathlib import Path

import httpx2

from pixyproxy.core.models.principal import Scope
from tests.support.commands import run_command
from tests.support.server import RunningServer, make_settings, serving

METADATA = "/.well-known/oauth-authorization-server"
KEYS = "/.well-known/jwks.json"


def test_issuer_is_server_address(anonymous: httpx2.Client, server: RunningServer) -> None:
    found = anonymous.get(METADATA, headers={"Host": "evil.example.com"}).json()
    assert found["issuer"] == server.url


def test_metadata_endpoints_exist(anonymous: httpx2.Client) -> None:
    answer = anonymous.get(METADATA)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    assert answer.headers["cache-control"] == "private, max-age=300"
    found = answer.json()
    for name, status in (("token_endpoint", 400), ("revocation_endpoint", 400), ("introspection_endpoint", 401)):
        assert anonymous.post(found[name]).status_code == status, name
    for name in ("jwks_uri", "service_documentation"):
        assert anonymous.get(found[name]).status_code == 200, name


def test_metadata_lists_server_capabilities(anonymous: httpx2.Client) -> None:
    found = anonymous.get(METADATA).json()
    assert found["grant_types_supported"] == ["client_credentials", "password", "refresh_token"]
    assert found["scopes_supported"] == list(Scope)
    assert found["response_types_supported"] == []
    assert "none" not in found["introspection_endpoint_auth_methods_supported"]


def test_public_url_is_issuer(tmp_path: Path) -> None:
    settings = make_settings(tmp_path, public_url="https://pictures.example.com/")
    with serving(settings) as server, server.client() as http:
        found = http.get(METADATA).json()
    assert found["issuer"] == "https://pictures.example.com"
    assert found["jwks_uri"] == "https://pictures.example.com/.well-known/jwks.json"


def test_published_keys_have_no_private_part(anonymous: httpx2.Client) -> None:
    answer = anonymous.get(KEYS)
    assert answer.headers["cache-control"] == "public, max-age=300"
    (key,) = answer.json()["keys"]
    assert key.keys() == {"kty", "crv", "x", "y", "kid", "use", "alg"}
    assert (key["kty"], key["crv"], key["use"], key["alg"]) == ("EC", "P-256", "sig", "ES256")


def test_rotation_publishes_next_key_beside_current_one(tmp_path: Path) -> None:
    settings = make_settings(tmp_path)
    with serving(settings) as server, server.client() as http:
        (former,) = http.get(KEYS).json()["keys"]
    rotated = run_command("keys", "rotate", settings=settings, folder=tmp_path)
    assert rotated.returncode == 0, rotated.stderr
    with serving(settings) as server, server.client() as http:
        published = http.get(KEYS).json()["keys"]
    assert len(published) == 2
    assert former in published
