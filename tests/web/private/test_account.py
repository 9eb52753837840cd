"""The caller's own identity and its tenant's usage."""

from datetime import UTC, datetime, timedelta

import pytest

from pixyproxy.core.models.principal import Role, Scope
from tests.conftest import on_both_databases
from tests.support.identity import bearer, make_key, make_tenant, make_user, order_token, sign_in
from tests.support.problems import assert_problem
from tests.support.server import TenantClient
from tests.web.builders import make_image

pytestmark = on_both_databases


def test_me_describes_credential(owner: TenantClient) -> None:
    account = make_user(owner.http, Role.VIEWER)
    me = owner.http.get("/me", headers=bearer(sign_in(owner.http, account)["access_token"])).json()
    assert me.keys() == {"tenant", "subject", "subject_type", "scopes", "allowed_models", "limits", "budget"}
    assert me["tenant"]["guid"] == owner.guid
    assert (me["subject"], me["subject_type"], me["scopes"]) == (account.guid, "user", ["image:read"])
    key = make_key(owner.http, Scope.USAGE_READ)
    me = owner.http.get("/me", headers=bearer(key["api_key"])).json()
    assert (me["subject"], me["subject_type"], me["allowed_models"]) == (key["guid"], "key", None)


def test_allowed_models_are_those_of_both_key_and_tenant(owner: TenantClient) -> None:
    tenant = make_tenant(owner.http, allowed_models=["a", "b"])
    token = order_token(owner.http, tenant["guid"], scope="key:manage image:read")
    key = owner.http.post(
        "/key", json={"name": "k", "scopes": ["image:read"], "allowed_models": ["b", "c"]}, headers=bearer(token)
    ).json()
    assert owner.http.get("/me", headers=bearer(key["api_key"])).json()["allowed_models"] == ["b"]
    assert owner.http.get("/me", headers=bearer(token)).json()["allowed_models"] == ["a", "b"]


@pytest.mark.usefixtures("upstream")
def test_usage_counts_only_tenants_own_pictures(owner: TenantClient, stranger: TenantClient) -> None:
    for _ in range(2):
        make_image(owner)
    make_image(stranger)
    (row,) = owner.http.get("/usage").json()
    assert row.keys() == {"day", "model", "key", "images", "cost_usd"}
    assert row["images"] == 2
    assert row["key"] == owner.http.get("/me").json()["subject"]
    tomorrow = (datetime.now(UTC) + timedelta(days=1)).date().isoformat()
    assert owner.http.get("/usage", params={"since": tomorrow, "until": tomorrow}).json() == []


@pytest.mark.parametrize(
    "period",
    [
        {"since": "yesterday"},
        {"until": "2026-02-30"},
    ],
)
def test_invalid_period_is_rejected(period: dict[str, str], owner: TenantClient) -> None:
    assert_problem(owner.http.get("/usage", params=period), 422, "invalid_request")


@pytest.mark.usefixtures("upstream")
def test_period_ending_before_its_start_is_empty(owner: TenantClient) -> None:
    make_image(owner)
    assert owner.http.get("/usage", params={"since": "2099-02-02", "until": "2020-02-01"}).json() == []


@pytest.mark.parametrize("period", [{"until": "0001-01-01"}, {"since": "9999-12-31"}, {"until": "9999-12-31"}])
def test_first_and_last_calendar_days_are_accepted(period: dict[str, str], owner: TenantClient) -> None:
    assert owner.http.get("/usage", params=period).status_code == 200
