"""Two independent OAuth libraries: every grant, revocation, introspection and key verification."""

from typing import Any

import httpx2
import pytest
from authlib.integrations.requests_client import OAuth2Session as AuthlibSession  # type: ignore[import-untyped]
from joserfc import jwt
from joserfc.jwk import KeySet
from oauthlib.oauth2 import BackendApplicationClient, LegacyApplicationClient
from requests.auth import HTTPBasicAuth
from requests_oauthlib import OAuth2Session

from pixyproxy.core.models.principal import Scope
from tests.support.identity import Account, Json, make_key, make_user
from tests.support.server import RunningServer, TenantClient

FIRST_PARTY = {"token_endpoint_auth_method": "none"}


@pytest.fixture(autouse=True)
def _plain_http(monkeypatch: pytest.MonkeyPatch) -> None:
    """Allow the libraries to use the test server without a certificate."""
    monkeypatch.setenv("OAUTHLIB_INSECURE_TRANSPORT", "1")
    monkeypatch.setenv("AUTHLIB_INSECURE_TRANSPORT", "1")


@pytest.fixture
def metadata(anonymous: httpx2.Client) -> Json:
    """Return the metadata that a client discovers (RFC 8414)."""
    found: Json = anonymous.get("/.well-known/oauth-authorization-server").json()
    return found


@pytest.fixture
def account(owner: TenantClient) -> Account:
    return make_user(owner.http)


@pytest.fixture
def key(owner: TenantClient) -> Json:
    return make_key(owner.http, Scope.IMAGE_READ, Scope.USAGE_READ)


def subject_of(session: Any, server: RunningServer) -> str:  # noqa: ANN401  (two libraries' sessions)
    """Return the session's subject, from a route that requires its token."""
    answer = session.get(f"{server.url}/me", timeout=30)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["subject"])


def test_authlib_signs_user_in_and_refreshes(account: Account, metadata: Json, server: RunningServer) -> None:
    with AuthlibSession("studio", **FIRST_PARTY) as session:
        first = session.fetch_token(
            metadata["token_endpoint"], username=account.username, password=account.password, scope="image:read"
        )
        assert subject_of(session, server) == account.guid
        second = session.refresh_token(metadata["token_endpoint"], refresh_token=first["refresh_token"])
        assert second["access_token"] != first["access_token"]
        assert second["scope"] == "image:read"
        assert subject_of(session, server) == account.guid


@pytest.mark.parametrize("method", ["client_secret_basic", "client_secret_post"])
def test_authlib_gets_token_for_key(method: str, key: Json, metadata: Json, server: RunningServer) -> None:
    assert method in metadata["token_endpoint_auth_methods_supported"]
    with AuthlibSession(
        key["key_id"], key["api_key"], token_endpoint_auth_method=method, scope="usage:read"
    ) as session:
        token = session.fetch_token(metadata["token_endpoint"], grant_type="client_credentials")
        assert token["scope"] == "usage:read"
        assert subject_of(session, server) == key["guid"]
        assert session.get(f"{server.url}/usage", timeout=30).status_code == 200


def test_authlib_introspects_and_revokes(account: Account, key: Json, metadata: Json, server: RunningServer) -> None:
    with AuthlibSession("studio", **FIRST_PARTY) as user:
        tokens = user.fetch_token(metadata["token_endpoint"], username=account.username, password=account.password)
        with AuthlibSession(key["key_id"], key["api_key"]) as client:
            asked = {"url": metadata["introspection_endpoint"], "token": tokens["access_token"]}
            told = client.introspect_token(**asked).json()
            assert (told["active"], told["sub"], told["client_id"]) == (True, account.guid, "studio")
            revoked = client.revoke_token(metadata["revocation_endpoint"], token=tokens["access_token"])
            assert revoked.status_code == 200
            assert client.introspect_token(**asked).json() == {"active": False}
        assert user.get(f"{server.url}/me", timeout=30).status_code == 401


def test_requests_oauthlib_signs_user_in_and_refreshes(account: Account, metadata: Json, server: RunningServer) -> None:
    with OAuth2Session(client=LegacyApplicationClient(client_id="studio")) as session:
        first = session.fetch_token(metadata["token_endpoint"], username=account.username, password=account.password)
        assert subject_of(session, server) == account.guid
        second = session.refresh_token(metadata["token_endpoint"], client_id="studio")
        assert second["refresh_token"] != first["refresh_token"]
        assert subject_of(session, server) == account.guid


@pytest.mark.parametrize("way", ["basic", "post"])
def test_requests_oauthlib_gets_token_for_key(way: str, key: Json, metadata: Json, server: RunningServer) -> None:
    with OAuth2Session(client=BackendApplicationClient(client_id=key["key_id"])) as session:
        if way == "basic":
            basic = HTTPBasicAuth(key["key_id"], key["api_key"])
            session.fetch_token(metadata["token_endpoint"], auth=basic)
        else:
            session.fetch_token(metadata["token_endpoint"], client_secret=key["api_key"], include_client_id=True)
        assert subject_of(session, server) == key["guid"]


def test_access_token_verifies_with_published_keys(account: Account, metadata: Json, anonymous: httpx2.Client) -> None:
    form = {**account.password_form, "client_id": "studio", "scope": "image:read"}
    text = anonymous.post(metadata["token_endpoint"], data=form).json()["access_token"]
    keys = KeySet.import_key_set(anonymous.get(metadata["jwks_uri"]).json())
    token = jwt.decode(text, keys, algorithms=["ES256"])
    assert (token.header["typ"], token.header["alg"]) == ("at+jwt", "ES256")
    wanted = {
        "iss": metadata["issuer"],
        "aud": metadata["issuer"],
        "sub": account.guid,
        "client_id": "studio",
        "scope": "image:read",
    }
    options = {name: {"essential": True, "value": value} for name, value in wanted.items()}
    options |= {name: {"essential": True} for name in ("exp", "iat", "jti")}
    jwt.JWTClaimsRegistry(**options).validate(token.claims)  # type: ignore[arg-type]  # a TypedDict for each claim
