"""The ``images`` repository: round trips and visibility."""

import pytest
from sqlalchemy.exc import IntegrityError

from pixyproxy.core.models.image import ImageChange, ImageFilter, ImageGuid
from pixyproxy.core.models.tenant import Tenant, TenantStatus, Visibility
from pixyproxy.data.database import Repositories
from tests.support.builders import LATER, add_generation, add_image, new_guid, new_image

TRICKY_TEXTS = {
    "emoji": "a 🦊 in the 雪, naïve façade, Ω",
    "quotes": """it's "quoted" `so` \\'and\\' '' "" ;-- :name %(name)s ?""",
    "nul": "before\0after",
    "longest": "🦊" * 32_000,
    "lines": "one\r\ntwo\u2028three\ttab",
    "spaces": "  around  ",
}


@pytest.mark.parametrize("prompt", TRICKY_TEXTS.values(), ids=TRICKY_TEXTS.keys())
def test_every_column_round_trips(data: Repositories, tenant: Tenant, prompt: str) -> None:
    image = new_image(
        tenant.id,
        add_generation(data, tenant.id).id,
        filename=prompt.replace("\0", "")[:255],
        prompt=prompt,
        visibility=Visibility.PRIVATE,
        media_type="image/webp",
        byte_size=5_000_000_000,
        sha256="0123456789abcdef" * 4,
        width=2048,
        height=1,
        model="vendor/model:2@é",
        updated_at=LATER,
    )
    stored = data.images.record(image)
    assert data.images.get_own(image.guid, tenant_id=tenant.id) == stored
    assert stored.model_dump(exclude={"id"}) == image.model_dump()


def test_ids_ascend_and_are_never_reused(data: Repositories, tenant: Tenant) -> None:
    first, second = add_image(data, tenant), add_image(data, tenant)
    assert 0 < first.id < second.id
    data.images.delete(second.guid, tenant_id=tenant.id)
    assert add_image(data, tenant).id > second.id


def test_recording_twice_returns_the_same_image(data: Repositories, tenant: Tenant) -> None:
    image = new_image(tenant.id, add_generation(data, tenant.id).id)
    assert data.images.record(image) == data.images.record(image)
    assert data.images.get_own(image.guid, tenant_id=tenant.id) is not None


def test_guid_of_another_tenant_cannot_be_recorded_again(data: Repositories, tenant: Tenant, stranger: Tenant) -> None:
    image = add_image(data, tenant)
    theirs = new_image(stranger.id, add_generation(data, stranger.id).id, guid=image.guid)
    with pytest.raises(IntegrityError):
        data.images.record(theirs)


def test_image_of_an_absent_generation_is_rejected(data: Repositories, tenant: Tenant) -> None:
    generation = add_generation(data, tenant.id)
    with pytest.raises(IntegrityError):
        data.images.record(new_image(tenant.id, generation.id).model_copy(update={"generation_id": generation.id + 1}))


def test_public_image_is_visible_to_everyone(data: Repositories, tenant: Tenant, stranger: Tenant) -> None:
    image = add_image(data, tenant, visibility=Visibility.PUBLIC)
    for viewer in (tenant.id, stranger.id, None):
        assert data.images.get_visible(image.guid, tenant_id=viewer) == image


def test_private_image_is_visible_only_to_its_tenant(data: Repositories, tenant: Tenant, stranger: Tenant) -> None:
    image = add_image(data, tenant, visibility=Visibility.PRIVATE)
    assert data.images.get_visible(image.guid, tenant_id=tenant.id) == image
    for viewer in (stranger.id, None):
        assert data.images.get_visible(image.guid, tenant_id=viewer) is None


def test_absent_guid_returns_none(data: Repositories, tenant: Tenant) -> None:
    assert data.images.get_visible(ImageGuid(new_guid()), tenant_id=tenant.id) is None


def test_get_own_excludes_public_images_of_other_tenants(data: Repositories, tenant: Tenant, stranger: Tenant) -> None:
    image = add_image(data, tenant)
    assert data.images.get_own(image.guid, tenant_id=stranger.id) is None


def test_image_of_a_generation_is_found_only_by_its_tenant(
    data: Repositories, tenant: Tenant, stranger: Tenant
) -> None:
    image = add_image(data, tenant)
    assert data.images.list_of_generations([image.generation_id], tenant_id=tenant.id) == [image]
    assert data.images.list_of_generations([image.generation_id], tenant_id=stranger.id) == []


def test_images_of_generations_are_found_in_order(data: Repositories, tenant: Tenant) -> None:
    generations = [add_generation(data, tenant.id) for _ in range(3)]
    images = [data.images.record(new_image(tenant.id, generation.id)) for generation in generations for _ in range(2)]
    wanted = [generation.id for generation in generations[:2]]
    assert data.images.list_of_generations(wanted, tenant_id=tenant.id) == images[:4]
    assert data.images.list_of_generations([], tenant_id=tenant.id) == []


@pytest.mark.parametrize(
    "change",
    [
        ImageChange(visibility=Visibility.PRIVATE),
        ImageChange(filename="naïve 🦊.png"),
        ImageChange(visibility=Visibility.PRIVATE, filename="b.png"),
        ImageChange(),
    ],
    ids=["visibility", "filename", "both", "nothing"],
)
def test_change_sets_only_the_named_fields(data: Repositories, tenant: Tenant, change: ImageChange) -> None:
    image = add_image(data, tenant)
    data.images.change(image.guid, change, tenant_id=tenant.id, at=LATER)
    expected = image.model_copy(update=change.model_dump(exclude_none=True) | {"updated_at": LATER})
    assert data.images.get_own(image.guid, tenant_id=tenant.id) == expected


def test_change_affects_only_that_image(data: Repositories, tenant: Tenant) -> None:
    image, other = add_image(data, tenant), add_image(data, tenant)
    data.images.change(image.guid, ImageChange(filename="b.png"), tenant_id=tenant.id, at=LATER)
    assert data.images.get_own(other.guid, tenant_id=tenant.id) == other


def test_another_tenant_cannot_change_or_delete(data: Repositories, tenant: Tenant, stranger: Tenant) -> None:
    image = add_image(data, tenant)
    data.images.change(image.guid, ImageChange(filename="b.png"), tenant_id=stranger.id, at=LATER)
    data.images.delete(image.guid, tenant_id=stranger.id)
    assert data.images.get_own(image.guid, tenant_id=tenant.id) == image


def test_delete_removes_only_that_image(data: Repositories, tenant: Tenant) -> None:
    image, other = add_image(data, tenant), add_image(data, tenant)
    data.images.delete(image.guid, tenant_id=tenant.id)
    assert data.images.get_own(image.guid, tenant_id=tenant.id) is None
    assert data.images.get_own(other.guid, tenant_id=tenant.id) == other


@pytest.mark.parametrize("status", [TenantStatus.SUSPENDED, TenantStatus.DELETING])
def test_public_images_of_an_inactive_tenant_are_hidden(
    data: Repositories, tenant: Tenant, stranger: Tenant, status: TenantStatus
) -> None:
    hidden, shown = add_image(data, tenant), add_image(data, stranger)
    data.tenants.update(tenant.model_copy(update={"status": status}))
    for viewer in (None, stranger.id):
        assert data.images.get_visible(hidden.guid, tenant_id=viewer) is None
        assert data.images.get_visible(shown.guid, tenant_id=viewer) == shown
        assert data.images.list_visible(ImageFilter(), tenant_id=viewer, before=None, limit=9) == [shown]
    data.tenants.update(tenant)
    assert data.images.get_visible(hidden.guid, tenant_id=None) == hidden


def test_list_some_returns_at_most_limit_own_images(data: Repositories, tenant: Tenant, stranger: Tenant) -> None:
    images = [add_image(data, tenant) for _ in range(3)]
    add_image(data, stranger)
    assert data.images.list_some(tenant_id=tenant.id, limit=2) == images[:2]
    assert data.images.list_some(tenant_id=tenant.id, limit=9) == images
