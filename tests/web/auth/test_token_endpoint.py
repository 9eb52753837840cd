"""The token endpoint: every error of RFC 6749 §5.2, client mistakes, and issued tokens."""

import uuid
from pathlib import Path
from urllib.parse import urlencode

import httpx2
import pytest

from pixyproxy.core.models.principal import ROLE_SCOPES, Role, Scope
from tests.support.identity import (
    EVERY_SCOPE,
    PASSWORD,
    Account,
    Json,
    audit_entries,
    bearer,
    client_form,
    get_tokens,
    make_key,
    make_user,
    sign_in,
)
from tests.support.process import new_api_key, running_server
from tests.support.server import TenantClient, make_settings, serving
from tests.web.auth.oauth import assert_oauth_error, basic, every_character_escaped, raw_basic

FORM = {"Content-Type": "application/x-www-form-urlencoded"}
MARK = "zebra<script>\"'\\"
"""Values that no response may repeat."""
KEY_ID = "0" * 12


@pytest.fixture
def account(owner: TenantClient) -> Account:
    """Return a member of the owner's tenant."""
    return make_user(owner.http)


@pytest.fixture
def key(owner: TenantClient) -> Json:
    """Return a key of the owner's tenant for generating pictures."""
    return make_key(owner.http, Scope.IMAGE_READ, Scope.IMAGE_GENERATE)


def refused(http: httpx2.Client, refresh_token: str) -> None:
    """Assert that a refresh token is rejected."""
    answer = http.post("/auth/token", data={"grant_type": "refresh_token", "refresh_token": refresh_token})
    assert_oauth_error(answer, 400, "invalid_grant")


@pytest.mark.parametrize(
    ("form", "status", "error"),
    [
        ({}, 400, "invalid_request"),
        ({"grant_type": ""}, 400, "invalid_request"),
        ({"grant_type": MARK}, 400, "unsupported_grant_type"),
        ({"grant_type": "authorization_code", "code": MARK}, 400, "unsupported_grant_type"),
        ({"grant_type": "x" * 101}, 400, "invalid_request"),
        ({"grant_type": "password"}, 400, "invalid_request"),
        ({"grant_type": "password", "username": MARK}, 400, "invalid_request"),
        ({"grant_type": "password", "username": "", "password": MARK}, 400, "invalid_request"),
        ({"grant_type": "password", "username": MARK, "password": MARK}, 400, "invalid_grant"),
        ({"grant_type": "password", "username": "a" * 129, "password": MARK}, 400, "invalid_request"),
        ({"grant_type": "password", "username": "a", "password": "a" * 257}, 400, "invalid_request"),
        ({"grant_type": "password", "username": "a\x00b", "password": MARK}, 400, "invalid_grant"),
        ({"grant_type": "password", "username": "a", "password": "\x00" * 20}, 400, "invalid_grant"),
        ({"grant_type": "password", "username": "%", "password": "' OR 1=1 --"}, 400, "invalid_grant"),
        ({"grant_type": "refresh_token"}, 400, "invalid_request"),
        ({"grant_type": "refresh_token", "refresh_token": MARK}, 400, "invalid_grant"),
        ({"grant_type": "refresh_token", "refresh_token": "pxr_" + "0" * 49}, 400, "invalid_grant"),
        ({"grant_type": "client_credentials"}, 401, "invalid_client"),
        ({"grant_type": "client_credentials", "client_id": MARK}, 401, "invalid_client"),
        ({"grant_type": "client_credentials", "client_secret": MARK}, 401, "invalid_client"),
        ({"grant_type": "client_credentials", "client_id": MARK, "client_secret": MARK}, 401, "invalid_client"),
        ({"grant_type": "client_credentials", "client_id": KEY_ID, "client_secret": "\x00"}, 401, "invalid_client"),
        ({"grant_type": "client_credentials", "client_id": "a" * 256}, 401, "invalid_client"),
        (
            {"grant_type": "password", "username": "a", "password": "b", "client_id": KEY_ID, "client_secret": MARK},
            401,
            "invalid_client",
        ),
    ],
)
def test_error_has_standard_code_and_repeats_no_input(
    form: dict[str, str], status: int, error: str, anonymous: httpx2.Client
) -> None:
    answer = anonymous.post("/auth/token", data=form, headers=FORM)
    assert_oauth_error(answer, status, error)
    assert "zebra" not in answer.text


def test_unknown_user_is_indistinguishable_from_wrong_password(account: Account, anonymous: httpx2.Client) -> None:
    wrong = {**account.password_form, "password": PASSWORD[:-1]}
    unknown = {**account.password_form, "username": str(uuid.uuid4())}
    answers = [
        assert_oauth_error(anonymous.post("/auth/token", data=form), 400, "invalid_grant") for form in (wrong, unknown)
    ]
    for answer in answers:
        answer.pop("request_id")
    assert answers[0] == answers[1]


@pytest.mark.parametrize("scope", ["image:everything", "admin", "image:read image:MANAGE", "\x00", "image:read,image"])
def test_scope_beyond_users_scopes_is_invalid(scope: str, account: Account, anonymous: httpx2.Client) -> None:
    answer = anonymous.post("/auth/token", data={**account.password_form, "scope": scope})
    assert_oauth_error(answer, 400, "invalid_scope")


def test_scope_beyond_keys_scopes_is_invalid(key: Json, anonymous: httpx2.Client) -> None:
    answer = anonymous.post("/auth/token", data={**client_form(key), "scope": "image:manage"})
    assert_oauth_error(answer, 400, "invalid_scope")


def test_password_sign_in_can_be_disabled(tmp_path: Path) -> None:
    with serving(make_settings(tmp_path, password_sign_in=False)) as server:
        owner = server.new_tenant("acme", scopes=EVERY_SCOPE)
        with owner.http:
            account = make_user(owner.http)
            answer = owner.http.post("/auth/token", data=account.password_form)
            assert_oauth_error(answer, 400, "unauthorized_client")
            assert "password" not in owner.http.get("/.well-known/oauth-authorization-server").text


def test_success_response_has_standard_members(account: Account, anonymous: httpx2.Client) -> None:
    answer = anonymous.post("/auth/token", data=account.password_form)
    assert answer.status_code == 200
    assert (answer.headers["cache-control"], answer.headers["pragma"]) == ("no-store", "no-cache")
    tokens = answer.json()
    assert tokens.keys() == {"access_token", "token_type", "expires_in", "scope", "refresh_token"}
    assert (tokens["token_type"], tokens["expires_in"]) == ("Bearer", 900)
    assert set(tokens["scope"].split()) == ROLE_SCOPES[Role.MEMBER]


def test_client_gets_no_refresh_token(key: Json, anonymous: httpx2.Client) -> None:
    tokens = get_tokens(anonymous, client_form(key))
    assert tokens.keys() == {"access_token", "token_type", "expires_in", "scope"}
    assert tokens["scope"] == "image:generate image:read"


def test_username_is_case_insensitive(account: Account, anonymous: httpx2.Client) -> None:
    form = {**account.password_form, "username": account.username.upper()}
    assert anonymous.post("/auth/token", data=form).status_code == 200


@pytest.mark.parametrize("escaped", [every_character_escaped, str, lambda text: text.replace("_", "%5f")])
def test_basic_credentials_may_be_percent_encoded(escaped: object, key: Json, anonymous: httpx2.Client) -> None:
    assert callable(escaped)
    header = raw_basic(f"{escaped(key['key_id'])}:{escaped(key['api_key'])}")
    answer = anonymous.post("/auth/token", data={"grant_type": "client_credentials"}, headers=header)
    assert answer.status_code == 200, answer.text


def test_client_secret_may_be_whole_key_or_its_secret_part(key: Json, anonymous: httpx2.Client) -> None:
    form = {**client_form(key), "client_secret": key["api_key"].split("_")[2]}
    assert anonymous.post("/auth/token", data=form).status_code == 200


@pytest.mark.parametrize(
    "header",
    [
        basic("a:b c%/é🦊", "p%:+ &=\x00"),
        raw_basic("nocolon"),
        raw_basic(b"\xff\xfe:\xff"),
        raw_basic("%ED%A0%80:%ff%zz"),
        {"Authorization": "Basic !!!"},
        {"Authorization": "Basic"},
        {"Authorization": "Bearer nonsense"},
    ],
)
def test_header_without_valid_client_is_rejected(header: dict[str, str], anonymous: httpx2.Client) -> None:
    answer = anonymous.post("/auth/token", data={"grant_type": "client_credentials"}, headers=header)
    assert_oauth_error(answer, 401, "invalid_client")


def test_empty_basic_credentials_are_ignored(account: Account, anonymous: httpx2.Client) -> None:
    empty = {"Authorization": "Basic Og=="}
    assert anonymous.post("/auth/token", data=account.password_form, headers=empty).status_code == 200
    answer = anonymous.post("/auth/token", data={"grant_type": "client_credentials"}, headers=empty)
    assert_oauth_error(answer, 401, "invalid_client")


def test_two_client_authentication_methods_are_rejected(key: Json, anonymous: httpx2.Client) -> None:
    header = basic(key["key_id"], key["api_key"])
    answer = anonymous.post("/auth/token", data=client_form(key), headers=header)
    assert_oauth_error(answer, 400, "invalid_request")
    other = {"grant_type": "client_credentials", "client_id": KEY_ID}
    assert_oauth_error(anonymous.post("/auth/token", data=other, headers=header), 400, "invalid_request")
    same = {**other, "client_id": key["key_id"]}
    assert anonymous.post("/auth/token", data=same, headers=header).status_code == 200


@pytest.mark.parametrize("name", ["scope", "grant_type", "client_id", "client_secret"])
def test_repeated_parameter_is_rejected(name: str, key: Json, anonymous: httpx2.Client) -> None:
    pairs = [*client_form(key).items(), ("scope", "image:read")]
    pairs += [pair for pair in pairs if pair[0] == name]
    answer = anonymous.post("/auth/token", content=urlencode(pairs), headers=FORM)
    assert_oauth_error(answer, 400, "invalid_request")


def test_unknown_parameter_is_ignored(key: Json, anonymous: httpx2.Client) -> None:
    form = [*client_form(key).items(), ("tenant_id", "1"), ("resource", "https://a.example"), ("resource", "b")]
    assert anonymous.post("/auth/token", content=urlencode(form), headers=FORM).status_code == 200


@pytest.mark.parametrize("path", ["/auth/token", "/auth/revoke", "/auth/introspect"])
@pytest.mark.parametrize(
    "media_type", ["text/plain", "application/json", "application/xml", "multipart/form-data", "nonsense", ""]
)
def test_body_of_other_content_type_is_rejected(
    path: str, media_type: str, account: Account, owner: TenantClient, anonymous: httpx2.Client
) -> None:
    body = urlencode({**account.password_form, "token": "nothing"})
    headers = {**bearer(owner.api_key), "Content-Type": media_type}
    assert_oauth_error(anonymous.post(path, content=body, headers=headers), 400, "invalid_request")


def test_json_body_is_rejected(account: Account, anonymous: httpx2.Client) -> None:
    assert_oauth_error(anonymous.post("/auth/token", json=account.password_form), 400, "invalid_request")


@pytest.mark.parametrize("name", ["username", "password", "grant_type", "client_id", "client_secret", "scope"])
def test_file_as_parameter_is_rejected(name: str, account: Account, anonymous: httpx2.Client) -> None:
    fields = {other: value for other, value in account.password_form.items() if other != name}
    answer = anonymous.post("/auth/token", data=fields, files={name: ("a.txt", b"zebra" * 100)})
    assert_oauth_error(answer, 400, "invalid_request")
    assert "zebra" not in answer.text


def test_body_of_20_mb_is_too_large(anonymous: httpx2.Client) -> None:
    answer = anonymous.post("/auth/token", content=b"password=" + b"a" * 20_000_000, headers=FORM)
    assert_oauth_error(answer, 413, "invalid_request")


REFUSALS = {
    "password": (400, "invalid_grant"),
    "refresh_token": (400, "invalid_grant"),
    "client_credentials": (401, "invalid_client"),
}


@pytest.mark.parametrize("value", ["%00", "a%00b", "%ED%A0%80", "%FF%FE", "%zz", "%", "%E2%80%A8"])
@pytest.mark.parametrize(
    ("name", "grant"),
    [
        ("username", "password"),
        ("password", "password"),
        ("refresh_token", "refresh_token"),
        ("client_id", "client_credentials"),
        ("client_secret", "client_credentials"),
        ("scope", "refresh_token"),
    ],
)
def test_unusual_bytes_are_rejected(name: str, value: str, grant: str, anonymous: httpx2.Client) -> None:
    fields = dict.fromkeys(("username", "password", "refresh_token"), "a") | {name: value}
    body = f"grant_type={grant}&" + "&".join(f"{field}={text}" for field, text in fields.items())
    answer = anonymous.post("/auth/token", content=body, headers=FORM)
    assert_oauth_error(answer, *REFUSALS[grant])


def test_token_endpoint_accepts_only_post(anonymous: httpx2.Client) -> None:
    for method in ("GET", "PUT", "DELETE"):
        answer = anonymous.request(method, "/auth/token?grant_type=password")
        assert_oauth_error(answer, 405, "invalid_request")
        assert answer.headers["allow"] == "POST"


def test_credential_in_query_is_ignored(key: Json, anonymous: httpx2.Client) -> None:
    answer = anonymous.post("/auth/token", params=client_form(key))
    assert_oauth_error(answer, 400, "invalid_request")


def test_narrowed_token_lacks_other_scopes(account: Account, anonymous: httpx2.Client) -> None:
    tokens = sign_in(anonymous, account, scope="image:read")
    assert tokens["scope"] == "image:read"
    answer = anonymous.post("/image", json={"prompt": "a fox"}, headers=bearer(tokens["access_token"]))
    assert (answer.status_code, answer.json()["code"]) == (403, "scope_missing")


def test_refresh_narrows_only_access_token(account: Account, anonymous: httpx2.Client) -> None:
    first = sign_in(anonymous, account, scope="image:read image:generate")
    form = {"grant_type": "refresh_token", "refresh_token": first["refresh_token"]}
    more = anonymous.post("/auth/token", data={**form, "scope": "image:manage"})
    assert_oauth_error(more, 400, "invalid_scope")
    second = get_tokens(anonymous, {**form, "scope": "image:read"})
    assert second["scope"] == "image:read"
    third = get_tokens(anonymous, {**form, "refresh_token": second["refresh_token"]})
    assert third["scope"] == "image:generate image:read"


def test_reused_refresh_token_ends_sign_in(account: Account, owner: TenantClient, anonymous: httpx2.Client) -> None:
    first, untouched = sign_in(anonymous, account), sign_in(anonymous, account)
    form = {"grant_type": "refresh_token", "refresh_token": first["refresh_token"]}
    second = get_tokens(anonymous, form)
    assert second["refresh_token"] != first["refresh_token"]
    refused(anonymous, first["refresh_token"])
    refused(anonymous, second["refresh_token"])
    for tokens in (first, second):
        assert anonymous.get("/me", headers=bearer(tokens["access_token"])).status_code == 401
    assert anonymous.get("/me", headers=bearer(untouched["access_token"])).status_code == 200
    (reused,) = audit_entries(owner.http, action="token.reused", target=account.guid)
    assert reused["tenant_guid"] == owner.guid


def test_refresh_token_is_rejected_for_another_client(account: Account, anonymous: httpx2.Client) -> None:
    tokens = sign_in(anonymous, account, client_id="studio")
    form = {"grant_type": "refresh_token", "refresh_token": tokens["refresh_token"]}
    answer = anonymous.post("/auth/token", data={**form, "client_id": "other"})
    assert_oauth_error(answer, 400, "invalid_grant")
    assert anonymous.post("/auth/token", data={**form, "client_id": "studio"}).status_code == 200


def test_refresh_token_of_confidential_client_requires_secret(
    account: Account, key: Json, anonymous: httpx2.Client
) -> None:
    header = basic(key["key_id"], key["api_key"])
    signed_in = anonymous.post("/auth/token", data=account.password_form, headers=header)
    form = {"grant_type": "refresh_token", "refresh_token": signed_in.json()["refresh_token"]}
    for stolen in (form, {**form, "client_id": key["key_id"]}):
        answer = anonymous.post("/auth/token", data=stolen)
        assert_oauth_error(answer, 400, "invalid_grant")
    assert anonymous.post("/auth/token", data=form, headers=header).status_code == 200


@pytest.mark.parametrize("client_id", ["a" * 255, "' OR 1=1 --"])
def test_unusual_client_id_gets_working_tokens(client_id: str, account: Account, anonymous: httpx2.Client) -> None:
    issued = anonymous.post("/auth/token", data=account.password_form, headers=basic(client_id, "")).json()
    assert anonymous.get("/me", headers=bearer(issued["access_token"])).status_code == 200
    form = {"grant_type": "refresh_token", "refresh_token": issued["refresh_token"]}
    get_tokens(anonymous, {**form, "client_id": client_id})


@pytest.mark.parametrize("client_id", ["stüdio 🦊", "a\x00b", "a\nb", "\u2028", "a" * 256])
def test_invalid_client_id_is_rejected(client_id: str, account: Account, anonymous: httpx2.Client) -> None:
    answer = anonymous.post("/auth/token", data=account.password_form, headers=basic(client_id, ""))
    assert_oauth_error(answer, 401, "invalid_client")


def test_revoked_token_is_rejected(account: Account, anonymous: httpx2.Client) -> None:
    token = sign_in(anonymous, account)["access_token"]
    answer = anonymous.post("/auth/revoke", data={"token": token})
    assert (answer.status_code, answer.content, answer.headers["cache-control"]) == (200, b"", "no-store")
    assert anonymous.get("/me", headers=bearer(token)).status_code == 401
    assert anonymous.post("/auth/revoke", data={"token": token}).status_code == 200


def test_revoking_refresh_token_ends_sign_in(account: Account, anonymous: httpx2.Client) -> None:
    tokens = sign_in(anonymous, account)
    form = {"token": tokens["refresh_token"], "token_type_hint": "access_token"}
    assert anonymous.post("/auth/revoke", data=form).status_code == 200
    refused(anonymous, tokens["refresh_token"])
    assert anonymous.get("/me", headers=bearer(tokens["access_token"])).status_code == 401


def test_client_cannot_revoke_tokens_of_another_tenant(
    account: Account, stranger: TenantClient, anonymous: httpx2.Client
) -> None:
    tokens = sign_in(anonymous, account)
    foreign = make_key(stranger.http, Scope.IMAGE_READ)
    header = basic(foreign["key_id"], foreign["api_key"])
    for kind in ("access_token", "refresh_token"):
        assert anonymous.post("/auth/revoke", data={"token": tokens[kind]}, headers=header).status_code == 200
    assert anonymous.get("/me", headers=bearer(tokens["access_token"])).status_code == 200
    get_tokens(anonymous, {"grant_type": "refresh_token", "refresh_token": tokens["refresh_token"]})


def test_invalid_client_revokes_nothing(account: Account, key: Json, anonymous: httpx2.Client) -> None:
    token = sign_in(anonymous, account)["access_token"]
    header = basic(key["key_id"], key["api_key"][:-1])
    assert_oauth_error(anonymous.post("/auth/revoke", data={"token": token}, headers=header), 401, "invalid_client")
    assert anonymous.get("/me", headers=bearer(token)).status_code == 200


@pytest.mark.parametrize("path", ["/auth/revoke", "/auth/introspect"])
def test_token_parameter_is_required(path: str, owner: TenantClient) -> None:
    for form in ({}, {"token": ""}, {"token": "a" * 10_001}):
        assert_oauth_error(owner.http.post(path, data=form, headers=FORM), 400, "invalid_request")


def test_introspection_describes_token_to_client_of_same_tenant(
    account: Account, owner: TenantClient, key: Json, anonymous: httpx2.Client
) -> None:
    tokens = sign_in(anonymous, account, scope="image:read", client_id="studio")
    header = basic(key["key_id"], key["api_key"])
    told = anonymous.post("/auth/introspect", data={"token": tokens["access_token"]}, headers=header).json()
    assert told.keys() == {
        *("active", "scope", "client_id", "username", "token_type", "exp", "iat", "sub", "aud", "iss", "jti", "tenant")
    }
    assert (told["active"], told["scope"], told["client_id"]) == (True, "image:read", "studio")
    assert (told["sub"], told["username"], told["tenant"]) == (account.guid, account.username, owner.guid)
    assert told["exp"] - told["iat"] == tokens["expires_in"]
    told = anonymous.post("/auth/introspect", data={"token": tokens["refresh_token"]}, headers=header).json()
    assert (told["active"], told["sub"], told["client_id"]) == (True, account.guid, "studio")
    anonymous.post("/auth/revoke", data={"token": tokens["refresh_token"]})
    for token in (tokens["access_token"], tokens["refresh_token"], "nonsense", owner.api_key):
        told = anonymous.post("/auth/introspect", data={"token": token}, headers=header).json()
        assert told == {"active": False}


def test_introspection_reveals_nothing_to_another_tenant(
    account: Account, stranger: TenantClient, anonymous: httpx2.Client
) -> None:
    tokens = sign_in(anonymous, account)
    for token in (tokens["access_token"], tokens["refresh_token"]):
        answer = stranger.http.post("/auth/introspect", data={"token": token})
        assert (answer.status_code, answer.json()) == (200, {"active": False})


def test_introspection_requires_credential(account: Account, anonymous: httpx2.Client) -> None:
    form = {"token": sign_in(anonymous, account)["access_token"]}
    assert_oauth_error(anonymous.post("/auth/introspect", data=form), 401, "invalid_client")
    assert_oauth_error(anonymous.post("/auth/introspect", data={**form, "client_id": "a"}), 401, "invalid_client")
    answer = anonymous.post("/auth/introspect", data=form, headers=bearer("nonsense"))
    assert_oauth_error(answer, 401, "invalid_client")
    assert answer.headers["www-authenticate"].startswith("Bearer ")


def test_log_contains_no_secret(tmp_path: Path) -> None:
    settings = make_settings(tmp_path, log_level="DEBUG")
    secrets = [new_api_key(settings, scopes=EVERY_SCOPE), PASSWORD]
    with running_server(settings, tmp_path) as server, server.client(secrets[0]) as http:
        account, key = make_user(http), make_key(http, Scope.IMAGE_READ)
        for tokens in (sign_in(http, account), get_tokens(http, client_form(key))):
            secrets += [value for name, value in tokens.items() if name.endswith("_token")]
            for path in ("/auth/introspect", "/auth/revoke"):
                http.post(path, data={"token": tokens["access_token"]})
        secrets.append(key["api_key"])
        for form in ({"password": PASSWORD}, {"grant_type": "password", "username": PASSWORD, "password": secrets[0]}):
            assert http.post("/auth/token", data=form).status_code == 400
        http.get("/me", params={"access_token": secrets[0]}, headers={"X-API-Key": key["api_key"]})
        log = server.log.read_text()
    assert "issue_token" in log
    for secret in secrets:
        assert secret not in log
        assert secret.split(".")[-1].split("_")[-1] not in log
