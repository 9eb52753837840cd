"""The ``tenants`` repository."""

import pytest

from pixyproxy.core.exceptions import TenantExistsException
from pixyproxy.core.models.tenant import Tenant, TenantGuid, Visibility
from pixyproxy.data.database import Repositories
from tests.support.builders import MOMENT, add_tenant, new_guid


@pytest.mark.parametrize("name", ["Acme", "naïve 🦊 'Ducky' & Söhne", "n" * 255])
@pytest.mark.parametrize("visibility", Visibility)
def test_every_column_comes_back_as_it_went_in(data: Repositories, name: str, visibility: Visibility) -> None:
    guid = TenantGuid(new_guid())
    tenant = data.tenants.insert(guid=guid, name=name, default_visibility=visibility, created_at=MOMENT)
    assert data.tenants.get_by_guid(guid) == data.tenants.get_by_name(name) == tenant
    assert tenant == Tenant(id=tenant.id, guid=guid, name=name, default_visibility=visibility, created_at=MOMENT)
    assert tenant.id > 0


def test_a_name_is_taken_once(data: Repositories) -> None:
    first = add_tenant(data, "Acme")
    with pytest.raises(TenantExistsException):
        add_tenant(data, "Acme")
    assert data.tenants.get_by_name("Acme") == first


@pytest.mark.parametrize(("name", "other"), [("🦊", "🐻"), ("Bar", "Bär"), ("Acme", "acme")])
def test_another_name_is_another_tenant(data: Repositories, name: str, other: str) -> None:
    first = add_tenant(data, name)
    assert data.tenants.get_by_name(other) is None
    assert add_tenant(data, other).id != first.id


def test_an_absent_tenant_is_none(data: Repositories) -> None:
    assert data.tenants.get_by_name("nobody") is None
    assert data.tenants.get_by_guid(new_guid()) is None


def test_tenants_are_listed_oldest_first(data: Repositories) -> None:
    tenants = [add_tenant(data, name) for name in ("b", "a", "c")]
    assert data.tenants.list_all() == tenants
