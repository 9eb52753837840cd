"""Lists of images: who sees what, pages, and searches that take every character literally."""

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


def test_a_list_holds_public_images_and_ones_own_newest_first(
    data: Repositories, tenant: Tenant, stranger: Tenant
) -> None:
    public = add_image(data, tenant)
    private = add_image(data, tenant, visibility=Visibility.PRIVATE)
    theirs = add_image(data, stranger)
    assert _list(data) == [theirs, public]
    assert _list(data, tenant_id=stranger.id) == [theirs, public]
    assert _list(data, tenant_id=tenant.id) == [theirs, private, public]


def test_mine_leaves_out_what_others_made(data: Repositories, tenant: Tenant, stranger: Tenant) -> None:
    mine = [add_image(data, tenant, visibility=visibility) for visibility in Visibility]
    add_image(data, stranger)
    assert _list(data, ImageFilter(mine=True), tenant_id=tenant.id) == mine[::-1]


def test_mine_of_nobody_is_nothing(data: Repositories, tenant: Tenant) -> None:
    add_image(data, tenant)
    assert _list(data, ImageFilter(mine=True)) == []


def test_a_search_finds_no_private_image_of_another_tenant(
    data: Repositories, tenant: Tenant, stranger: Tenant
) -> None:
    image = add_image(data, tenant, prompt="secret plan", filename="plan.png", visibility=Visibility.PRIVATE)
    for wanted in (ImageFilter(prompt="plan"), ImageFilter(filename="plan"), ImageFilter(guid=image.guid)):
        assert _list(data, wanted, tenant_id=stranger.id) == []
        assert _list(data, wanted) == []
        assert _list(data, wanted, tenant_id=tenant.id) == [image]


@pytest.mark.parametrize("literal", ["%", "_", "\\", "!", "'", '"', "!%", "\\_", "100%", "a_b", "🦊", ":word_0"])
@pytest.mark.parametrize("field", ["prompt", "filename"])
def test_a_search_takes_every_character_literally(data: Repositories, tenant: Tenant, literal: str, field: str) -> None:
    add_image(data, tenant, **{field: "100 axb 🐻 plain"})
    hit = add_image(data, tenant, **{field: f"x{literal}y"})
    assert _list(data, ImageFilter(**{field: literal})) == [hit]


@pytest.mark.parametrize(
    ("stored", "sought"), [("Fox", "fOX"), ("Ärger", "äRGER"), ("ΣΟΦΙΑ", "σοφια"), ("ёж", "ЁЖ"), ("ÇA", "ça")]
)
@pytest.mark.parametrize("field", ["prompt", "filename"])
def test_a_search_has_no_regard_to_case(
    data: Repositories, tenant: Tenant, stored: str, sought: str, field: str
) -> None:
    add_image(data, tenant, **{field: "another one"})
    hit = add_image(data, tenant, **{field: f"the {stored}."})
    assert _list(data, ImageFilter(**{field: sought})) == [hit]


def test_every_word_must_occur_in_any_order_and_anywhere(data: Repositories, tenant: Tenant) -> None:
    add_image(data, tenant, prompt="a red hen")
    hit = add_image(data, tenant, prompt="foxes of reddish fur")
    assert _list(data, ImageFilter(prompt=" red \t fox\n")) == [hit]


def test_a_filename_is_sought_as_one_text(data: Repositories, tenant: Tenant) -> None:
    add_image(data, tenant, filename="fox red.png")
    hit = add_image(data, tenant, filename="my red fox.png")
    assert _list(data, ImageFilter(filename="red fox")) == [hit]


def test_filters_are_joined_by_and(data: Repositories, tenant: Tenant) -> None:
    add_image(data, tenant, prompt="fox", filename="b.png")
    add_image(data, tenant, prompt="hen", filename="a.png")
    hit = add_image(data, tenant, prompt="fox", filename="a.png")
    assert _list(data, ImageFilter(prompt="fox", filename="a.png", guid=hit.guid.upper())) == [hit]


def test_blank_texts_filter_nothing(data: Repositories, tenant: Tenant) -> None:
    image = add_image(data, tenant)
    assert _list(data, ImageFilter(prompt=" ", filename="")) == [image]


def test_eight_words_are_sought_and_no_more(data: Repositories, tenant: Tenant) -> None:
    add_image(data, tenant, prompt="a b c d e f g")
    hit = add_image(data, tenant, prompt="h g f e d c b a")
    assert _list(data, ImageFilter(prompt="a b c d e f g h")) == [hit]
    with pytest.raises(ValidationError, match="at most 8 words"):
        ImageFilter(prompt="a b c d e f g h i")


def test_pages_give_every_image_once_whatever_comes_and_goes_meanwhile(data: Repositories, tenant: Tenant) -> None:
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
