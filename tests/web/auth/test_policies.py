"""Credentials over HTTP: either header, the right scope, and at once worthless when revoked."""

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
def test_a_key_is_taken_from_either_header(form: str, tenant: TenantClient, anonymous: httpx2.Client) -> None:
    name, _, value = form.format(key=tenant.api_key).partition(": ")
    answer = anonymous.post("/image", json={"prompt": "a fox"}, headers={name: value})
    assert answer.status_code == 201


def test_a_good_key_in_one_header_does_not_excuse_a_bad_one_in_the_other(
    tenant: TenantClient, anonymous: httpx2.Client, upstream: FakeUpstream
) -> None:
    headers = {"X-API-Key": tenant.api_key, "Authorization": "Bearer pxy_wrong"}
    answer = anonymous.post("/image", json={"prompt": "a fox"}, headers=headers)
    assert_problem(answer, 401, "credential_invalid")
    assert upstream.requests == []


@pytest.mark.parametrize("sign_in", ["Basic YW5uOnNlY3JldA==", "basic", "Negotiate YII=", 'Digest username="ann"'])
def test_the_sign_in_of_a_reverse_proxy_is_no_credential(
    sign_in: str, tenant: TenantClient, anonymous: httpx2.Client
) -> None:
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
def test_no_other_scope_allows_to_make_pictures(scope: Scope, server: RunningServer, upstream: FakeUpstream) -> None:
    caller = tenant_with(server, str(uuid.uuid4()), scope)
    with caller.http:
        answer = caller.http.post("/image", json={"prompt": "a fox"})
    problem = assert_problem(answer, 403, "scope_missing")
    assert problem["scope"] == "image:generate"
    expected = 'Bearer realm="pixyproxy", error="insufficient_scope", scope="image:generate"'
    assert answer.headers["www-authenticate"] == expected
    assert upstream.requests == []


def test_who_may_not_call_is_told_so_before_the_body_is_judged(anonymous: httpx2.Client, server: RunningServer) -> None:
    assert_problem(anonymous.post("/image", json={"nonsense": 1}), 401, "credential_missing")
    reader = tenant_with(server, str(uuid.uuid4()), Scope.IMAGE_READ)
    with reader.http:
        assert_problem(reader.http.post("/image", json={"nonsense": 1}), 403, "scope_missing")


@pytest.mark.usefixtures("upstream")
def test_a_revoked_key_is_worthless_at_once_on_an_open_connection(server: RunningServer) -> None:
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
