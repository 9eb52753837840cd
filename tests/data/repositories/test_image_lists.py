"""Lists of images: visibility, pages, and literal searches."""

import pytest
from pydantic import ValidationError

from pixyproxy.core.models.image import ImageFilter, ImageId, StoredImage
from pixyproxy.core.models.tenant import Tenant, TenantId, Visibility
from pixyproxy.data.database import Repositories
from tests.support.builders import add_image, add_tenant

EVERYTHING = ImageFilter()


def _list(
    data: Repositories,
    wanted: ImageFilter = EVERYTHING,
    *,
    tenant_id: TenantId | None = None,
    before: ImageId | None = None,
    limit: int = 100,
) -> list[StoredImage]:
    return data.images.list_visible(wanted, tenant_id=tenant_id, before=before, limit=limit)


def test_list_has_public_and_own_images_newest_first(data: Repositories, tenant: Tenant, stranger: Tenant) -> None:
    public = add_image(data, tenant)
    private = add_image(data, tenant, visibility=Visibility.PRIVATE)
    theirs = add_image(data, stranger)
    assert _list(data) == [theirs, public]
    assert _list(data, tenant_id=stranger.id) == [theirs, public]
    assert _list(data, tenant_id=tenant.id) == [theirs, private, public]


def test_mine_excludes_images_of_others(data: Repositories, tenant: Tenant, stranger: Tenant) -> None:
    mine = [add_image(data, tenant, visibility=visibility) for visibility in Visibility]
    add_image(data, stranger)
    assert _list(data, ImageFilter(mine=True), tenant_id=tenant.id) == mine[::-1]


def test_mine_without_a_tenant_is_empty(data: Repositories, tenant: Tenant) -> None:
    add_image(data, tenant)
    assert _list(data, ImageFilter(mine=True)) == []


def test_search_excludes_private_images_of_other_tenants(data: Repositories, tenant: Tenant, stranger: Tenant) -> None:
    image = add_image(data, tenant, prompt="secret plan", filename="plan.png", visibility=Visibility.PRIVATE)
    for wanted in (ImageFilter(prompt="plan"), ImageFilter(filename="plan"), ImageFilter(guid=image.guid)):
        assert _list(data, wanted, tenant_id=stranger.id) == []
        assert _list(data, wanted) == []
        assert _list(data, wanted, tenant_id=tenant.id) == [image]


@pytest.mark.parametrize("literal", ["%", "_", "\\", "!", "'", '"', "!%", "\\_", "100%", "a_b", "🦊", ":word_0"])
@pytest.mark.parametrize("field", ["prompt", "filename"])
def test_search_matches_every_character_literally(data: Repositories, tenant: Tenant, literal: str, field: str) -> None:
    add_image(data, tenant, **{field: "100 axb 🐻 plain"})
    hit = add_image(data, tenant, **{field: f"x{literal}y"})
    assert _list(data, ImageFilter(**{field: literal})) == [hit]


@pytest.mark.parametrize(
    ("stored", "sought"), [("Fox", "fOX"), ("Ärger", "äRGER"), ("ΣΟΦΙΑ", "σοφια"), ("ёж", "ЁЖ"), ("ÇA", "ça")]
)
@pytest.mark.parametrize("field", ["prompt", "filename"])
def test_search_ignores_case(data: Repositories, tenant: Tenant, stored: str, sought: str, field: str) -> None:
    add_image(data, tenant, **{field: "another one"})
    hit = add_image(data, tenant, **{field: f"the {stored}."})
    assert _list(data, ImageFilter(**{field: sought})) == [hit]


def test_all_words_must_occur_anywhere_in_any_order(data: Repositories, tenant: Tenant) -> None:
    add_image(data, tenant, prompt="a red hen")
    hit = add_image(data, tenant, prompt="foxes of reddish fur")
    assert _list(data, ImageFilter(prompt=" red \t fox\n")) == [hit]


def test_filename_is_searched_as_one_text(data: Repositories, tenant: Tenant) -> None:
    add_image(data, tenant, filename="fox red.png")
    hit = add_image(data, tenant, filename="my red fox.png")
    assert _list(data, ImageFilter(filename="red fox")) == [hit]


def test_filters_are_combined_with_and(data: Repositories, tenant: Tenant) -> None:
    add_image(data, tenant, prompt="fox", filename="b.png")
    add_image(data, tenant, prompt="hen", filename="a.png")
    hit = add_image(data, tenant, prompt="fox", filename="a.png")
    assert _list(data, ImageFilter(prompt="fox", filename="a.png", guid=hit.guid.upper())) == [hit]


def test_blank_texts_filter_nothing(data: Repositories, tenant: Tenant) -> None:
    image = add_image(data, tenant)
    assert _list(data, ImageFilter(prompt=" ", filename="")) == [image]


def test_search_accepts_at_most_eight_words(data: Repositories, tenant: Tenant) -> None:
    add_image(data, tenant, prompt="a b c d e f g")
    hit = add_image(data, tenant, prompt="h g f e d c b a")
    assert _list(data, ImageFilter(prompt="a b c d e f g h")) == [hit]
    with pytest.raises(ValidationError, match="at most 8 words"):
        ImageFilter(prompt="a b c d e f g h i")


def test_pages_return_each_image_once_despite_changes(data: Repositories, tenant: Tenant) -> None:
    images = [add_image(data, tenant) for _ in range(50)]
    add_image(data, add_tenant(data), visibility=Visibility.PRIVATE)
    deleted = images[20]
    pages: list[list[StoredImage]] = []
    before = None
    while page := _list(data, tenant_id=tenant.id, before=before, limit=7):
        pages.append(page)
        before = page[-1].id
        add_image(data, tenant)
        data.images.delete(deleted.guid, tenant_id=tenant.id)
    assert [image for page in pages for image in page] == [image for image in reversed(images) if image != deleted]
    assert [len(page) for page in pages] == [7] * 7
