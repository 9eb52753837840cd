"""Credentials over HTTP: both headers, required scopes and immediate revocation."""

import uuid

import httpx2
import pytest

from pixyproxy.core.models.principal import Scope
from pixyproxy.service.composition import Services
from pixyproxy.service.private.identity.tenants import command_grantor
from tests.support.problems import assert_problem
from tests.support.server import ACTOR, RunningServer, TenantClient
from tests.support.upstream import FakeUpstream
from tests.web.builders import make_image, tenant_with


@pytest.mark.usefixtures("upstream")
@pytest.mark.parametrize("form", ["X-API-Key: {key}", "Authorization: Bearer {key}", "authorization: bearer {key}"])
def test_key_is_accepted_in_either_header(form: str, tenant: TenantClient, anonymous: httpx2.Client) -> None:
    name, _, value = form.format(key=tenant.api_key).partition(": ")
    answer = anonymous.post("/image", json={"prompt": "a fox"}, headers={name: value})
    assert answer.status_code == 201


def test_valid_key_does_not_excuse_invalid_key_in_other_header(
    tenant: TenantClient, anonymous: httpx2.Client, upstream: FakeUpstream
) -> None:
    headers = {"X-API-Key": tenant.api_key, "Authorization": "Bearer pxy_wrong"}
    answer = anonymous.post("/image", json={"prompt": "a fox"}, headers=headers)
    assert_problem(answer, 401, "credential_invalid")
    assert upstream.requests == []


@pytest.mark.parametrize("sign_in", ["Basic YW5uOnNlY3JldA==", "basic", "Negotiate YII=", 'Digest username="ann"'])
def test_reverse_proxy_sign_in_is_ignored(sign_in: str, tenant: TenantClient, anonymous: httpx2.Client) -> None:
    proxied = {"Authorization": sign_in}
    assert anonymous.get("/image", headers=proxied).status_code == 200
    assert_problem(anonymous.get("/me", headers=proxied), 401, "credential_missing")
    assert_problem(anonymous.get("/image", headers=proxied | {"X-API-Key": "pxy_wrong"}), 401, "credential_invalid")
    me = anonymous.get("/me", headers=proxied | {"X-API-Key": tenant.api_key})
    assert (me.status_code, me.json()["tenant"]["guid"]) == (200, tenant.guid)
    form = {"token": "nothing"}
    told = anonymous.post("/auth/introspect", data=form, headers=proxied | {"X-API-Key": tenant.api_key})
    assert (told.status_code, told.json()) == (200, {"active": False})
    assert anonymous.post("/auth/introspect", data=form, headers=proxied).status_code == 401


@pytest.mark.parametrize("scope", sorted(set(Scope) - {Scope.IMAGE_GENERATE}))
def test_generating_requires_image_generate_scope(scope: Scope, server: RunningServer, upstream: FakeUpstream) -> None:
    caller = tenant_with(server, str(uuid.uuid4()), scope)
    with caller.http:
        answer = caller.http.post("/image", json={"prompt": "a fox"})
    problem = assert_problem(answer, 403, "scope_missing")
    assert problem["scope"] == "image:generate"
    expected = 'Bearer realm="pixyproxy", error="insufficient_scope", scope="image:generate"'
    assert answer.headers["www-authenticate"] == expected
    assert upstream.requests == []


def test_missing_scope_is_reported_before_body_validation(anonymous: httpx2.Client, server: RunningServer) -> None:
    assert_problem(anonymous.post("/image", json={"nonsense": 1}), 401, "credential_missing")
    reader = tenant_with(server, str(uuid.uuid4()), Scope.IMAGE_READ)
    with reader.http:
        assert_problem(reader.http.post("/image", json={"nonsense": 1}), 403, "scope_missing")


@pytest.mark.usefixtures("upstream")
def test_revoked_key_is_rejected_at_once_on_open_connection(server: RunningServer) -> None:
    caller = server.new_tenant(str(uuid.uuid4()))

    async def revoke(services: Services) -> None:
        owner = await services.tenants.require_tenant(caller.guid)
        (key,) = (await services.api_keys.list_keys(tenant_id=owner.id)).items
        await services.api_keys.revoke_key(key.guid, grantor=command_grantor(owner, ACTOR))

    with caller.http:
        make_image(caller)
        server.call(revoke)
        assert_problem(caller.http.post("/image", json={"prompt": "a fox"}), 401, "credential_invalid")
        assert_problem(caller.http.get("/image"), 401, "credential_invalid")
        assert caller.http.get("/healthz").status_code == 200
