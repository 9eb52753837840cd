"""Tokens of a trusted OpenID Connect issuer over HTTP: tenants and permissions."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from pixyproxy.core.models.principal import Scope
from pixyproxy.core.models.tenant import NewTenant, TenantChange, TenantStatus
from pixyproxy.core.models.trusted_issuer import TrustedIssuer
from tests.support.identity import bearer
from tests.support.oidc import AUDIENCE, FakeIssuer, new_key
from tests.support.problems import assert_problem
from tests.support.server import ACTOR, RunningServer, make_settings, serving


@pytest.fixture(scope="module")
def issuer() -> Iterator[FakeIssuer]:
    """Yield the issuer that the server trusts."""
    with FakeIssuer() as issuer:
        yield issuer


@pytest.fixture(scope="module")
def relying(tmp_path_factory: pytest.TempPathFactory, issuer: FakeIssuer) -> Iterator[RunningServer]:
    """Yield a server that trusts the issuer, whose tokens name their tenant in ``org``."""
    trusted = TrustedIssuer(issuer=issuer.url, audience=AUDIENCE, tenant_claim="org")
    folder: Path = tmp_path_factory.mktemp("relying")
    with serving(make_settings(folder, trusted_issuers=(trusted,))) as server:
        server.call(lambda services: services.tenants.create_tenant(NewTenant(name="acme"), actor=ACTOR))
        yield server


def test_token_acts_for_its_named_tenant(relying: RunningServer, issuer: FakeIssuer) -> None:
    token = issuer.sign(org="acme", scope="image:read image:generate unknown:scope")
    with relying.client() as client:
        me = client.get("/me", headers=bearer(token)).json()
        made = client.post("/image", json={"prompt": "a fox", "size": "64x64"}, headers=bearer(token))
    assert me["tenant"]["name"] == "acme"
    assert (me["subject"], me["subject_type"]) == (f"{issuer.url}#user-7", "foreign")
    assert me["scopes"] == ["image:generate", "image:read"]
    assert made.status_code == 201


def test_foreign_token_cannot_administer(relying: RunningServer, issuer: FakeIssuer) -> None:
    token = issuer.sign(org="acme", scope=" ".join(Scope))
    with relying.client() as client:
        assert_problem(client.get("/admin/tenant", headers=bearer(token)), 403, "scope_missing")
        assert_problem(client.get("/user", headers=bearer(token)), 403, "scope_missing")


def test_token_not_issued_for_this_server_is_rejected(relying: RunningServer, issuer: FakeIssuer) -> None:
    forged = [
        issuer.sign(org="nobody", scope="image:read"),
        issuer.sign(scope="image:read"),
        issuer.sign(org="acme", aud="https://elsewhere.example.com"),
        issuer.sign(org="acme", exp=1),
        issuer.sign(org="acme", iss="https://elsewhere.example.com"),
        issuer.sign(org="acme", key=new_key("first")),
        issuer.sign(org="acme", key=new_key("another")),
    ]
    with relying.client() as client:
        for token in forged:
            assert_problem(client.get("/me", headers=bearer(token)), 401, "credential_invalid")


def test_suspended_tenant_gets_its_own_error(relying: RunningServer, issuer: FakeIssuer) -> None:
    tenant = relying.call(lambda services: services.tenants.create_tenant(NewTenant(name="late payer"), actor=ACTOR))
    change = TenantChange(status=TenantStatus.SUSPENDED)
    relying.call(lambda services: services.tenants.change_tenant(tenant.guid, change, actor=ACTOR))
    with relying.client() as client:
        answer = client.get("/me", headers=bearer(issuer.sign(org="late payer", scope="image:read")))
    assert_problem(answer, 403, "tenant_suspended")


def test_unreachable_issuer_returns_503_until_reached(tmp_path: Path) -> None:
    with FakeIssuer() as issuer:
        issuer.fail()
        trusted = TrustedIssuer(issuer=issuer.url, audience=AUDIENCE, tenant="acme")
        with serving(make_settings(tmp_path, trusted_issuers=(trusted,))) as server, server.client() as client:
            server.call(lambda services: services.tenants.create_tenant(NewTenant(name="acme"), actor=ACTOR))
            answer = client.get("/me", headers=bearer(issuer.sign()))
            assert_problem(answer, 503, "issuer_unavailable")
            assert int(answer.headers["retry-after"]) >= 1
            assert client.get("/healthz").status_code == 200
