"""The ``tenants`` repository."""

import json
import random
from decimal import Decimal

import pytest

from pixyproxy.core.exceptions import TenantExistsException
from pixyproxy.core.models.budget import usd
from pixyproxy.core.models.tenant import TenantId, TenantStatus, Visibility
from pixyproxy.data.database import Repositories
from pixyproxy.data.repositories.tenants import from_row, to_row
from tests.support.builders import LATER, add_generation, add_tenant, new_guid, new_tenant


@pytest.mark.parametrize("name", ["Acme", "naïve 🦊 'Ducky' & Söhne", "n" * 255])
@pytest.mark.parametrize("visibility", Visibility)
def test_every_column_round_trips(data: Repositories, name: str, visibility: Visibility) -> None:
    new = new_tenant(name=name, default_visibility=visibility)
    tenant = data.tenants.insert(new)
    assert data.tenants.get_by_guid(new.guid) == data.tenants.get_by_name(name) == tenant
    assert data.tenants.get_by_id(tenant.id) == tenant
    assert tenant == new.model_copy(update={"id": tenant.id})
    assert tenant.id > 0


@pytest.mark.parametrize("status", TenantStatus)
def test_every_limit_round_trips(data: Repositories, status: TenantStatus) -> None:
    tenant = data.tenants.insert(
        new_tenant(
            status=status,
            images_per_minute=1_000_000,
            monthly_budget_usd=Decimal(1000000000),
            allowed_models=frozenset({"gpt-image-2", "vendor/model:2@x"}),
        )
    )
    assert data.tenants.get_by_guid(tenant.guid) == tenant


@pytest.mark.parametrize("budget", ["0", "0.000001", "12.345678", "999999999.999999"])
def test_money_is_stored_to_the_micro_dollar(data: Repositories, budget: str) -> None:
    tenant = data.tenants.insert(new_tenant(monthly_budget_usd=Decimal(budget)))
    found = data.tenants.get_by_id(tenant.id)
    assert found is not None
    assert found.monthly_budget_usd == Decimal(budget)


@pytest.mark.parametrize("places", range(7))
def test_budget_is_exact_in_the_database_and_in_json(places: int) -> None:
    dice = random.Random(places)
    amounts = [Decimal(dice.randrange(10 ** dice.randint(1, 9 + places))).scaleb(-places) for _ in range(200)]
    for amount in [*amounts, Decimal("2.01"), Decimal("4.35")]:
        sent = json.loads(str(amount))
        tenant = new_tenant(monthly_budget_usd=sent)
        row = to_row(tenant)
        micro_usd = row["monthly_budget_micro_usd"]
        assert isinstance(micro_usd, int)
        assert micro_usd == amount * 1_000_000
        assert from_row(row | {"id": tenant.id}) == tenant
        assert json.loads(tenant.model_dump_json())["monthly_budget_usd"] == usd(micro_usd) == sent


def test_a_hundred_models_of_maximum_length_fit(data: Repositories) -> None:
    models = frozenset(f"{number:03}{'m' * 125}" for number in range(100))
    tenant = data.tenants.insert(new_tenant(allowed_models=models))
    assert data.tenants.get_by_id(tenant.id) == tenant


def test_name_is_unique(data: Repositories) -> None:
    first = add_tenant(data, "Acme")
    with pytest.raises(TenantExistsException):
        add_tenant(data, "Acme")
    assert data.tenants.get_by_name("Acme") == first


@pytest.mark.parametrize(("name", "other"), [("🦊", "🐻"), ("Bar", "Bär"), ("Acme", "acme")])
def test_similar_name_is_another_tenant(data: Repositories, name: str, other: str) -> None:
    first = add_tenant(data, name)
    assert data.tenants.get_by_name(other) is None
    assert add_tenant(data, other).id != first.id


@pytest.mark.parametrize("other", ["Acme ", "Acme  ", " Acme", "Acme\u00a0", "acme", "Ácme", "Acme\0"])
def test_similar_name_is_not_found(data: Repositories, other: str) -> None:
    tenant = add_tenant(data, "Acme")
    assert data.tenants.find(other) is None
    assert data.tenants.lock(other) is None
    assert data.tenants.find("Acme") == data.tenants.lock("Acme") == tenant


def test_guid_is_found_in_any_case_but_not_similar_ones(data: Repositories) -> None:
    tenant = data.tenants.insert(new_tenant(guid="0f8b6b0e-95a4-4f37-9a4e-6f6a0f3c1c55"))
    assert data.tenants.find(tenant.guid.upper()) == tenant
    for other in (f"{tenant.guid} ", tenant.guid.replace("b", "\uff42"), tenant.guid.replace("b", "b\u0301")):
        assert data.tenants.find(other) is None


def test_absent_tenant_returns_none(data: Repositories) -> None:
    assert data.tenants.get_by_name("nobody") is None
    assert data.tenants.get_by_guid(new_guid()) is None
    assert data.tenants.get_by_id(TenantId(0)) is None


def test_tenants_are_listed_oldest_first(data: Repositories) -> None:
    tenants = [add_tenant(data, name) for name in ("b", "a", "c")]
    assert data.tenants.list_all() == tenants


def test_update_writes_only_changeable_columns_of_that_tenant(data: Repositories) -> None:
    tenant, other = add_tenant(data), add_tenant(data)
    allowed = {
        "name": "another",
        "status": TenantStatus.SUSPENDED,
        "default_visibility": Visibility.PRIVATE,
        "images_per_minute": 7,
        "monthly_budget_usd": Decimal("1.5"),
        "allowed_models": frozenset({"m"}),
    }
    data.tenants.update(tenant.model_copy(update=allowed | {"created_at": LATER}))
    assert data.tenants.list_all() == [tenant.model_copy(update=allowed), other]


def test_update_to_a_taken_name_is_rejected(data: Repositories) -> None:
    tenant, other = add_tenant(data), add_tenant(data)
    with pytest.raises(TenantExistsException):
        data.tenants.update(tenant.model_copy(update={"name": other.name}))


def test_list_deleting_returns_only_tenants_being_deleted(data: Repositories) -> None:
    made = {status: data.tenants.insert(new_tenant(name=status, status=status)) for status in TenantStatus}
    assert data.tenants.list_deleting() == [made[TenantStatus.DELETING]]


def test_delete_removes_only_that_tenant(data: Repositories) -> None:
    tenant, other = add_tenant(data), add_tenant(data)
    data.tenants.delete(tenant.id)
    assert data.tenants.list_all() == [other]


def test_tenant_with_objects_cannot_be_deleted(data: Repositories) -> None:
    tenant = add_tenant(data)
    add_generation(data, tenant.id)
    with pytest.raises(Exception, match=r"(?i)foreign key"):
        data.tenants.delete(tenant.id)
