"""From a request to a claim."""

import hashlib
import re

import pytest

from pixyproxy.core.models.generation import Generation
from pixyproxy.core.models.image import GenerationId, GenerationPrompt, ImageGuid, ImagePrompt
from pixyproxy.core.models.order import InputPicture, NewOrder, Operation, ReceivedPicture
from pixyproxy.core.models.tenant import TenantId, Visibility
from pixyproxy.service.private.generation.orders import (
    fingerprint,
    new_images,
    order_of,
    picture_order,
)
from tests.support.builders import new_generation, new_guid, new_order

ORDER = NewOrder(prompt="a red fox")
MASK = InputPicture(field="mask", media_type="image/png", byte_size=7, sha256="a" * 64)


def _picture(media_type: str = "image/png") -> ReceivedPicture:
    return ReceivedPicture.model_validate(
        {"media_type": media_type, "byte_size": 7, "sha256": "b" * 64, "width": 3, "height": 2}
    )


def _generation(*, pictures: int = 1, prompt: str = "a red fox", filename: str | None = None) -> Generation:
    guids = tuple(ImageGuid(new_guid()) for _ in range(pictures))
    new = new_generation(TenantId(1), order=new_order(prompt=prompt, count=pictures), image_guids=guids)
    return Generation(**(dict(new) | {"filename": filename, "id": GenerationId(1)}))


def test_prompt_becomes_an_order_with_unchanged_options() -> None:
    prompt = ImagePrompt(
        prompt="a", model="m", size="auto", output_compression=0, visibility=Visibility.PRIVATE, filename="f"
    )
    assert order_of(prompt) == NewOrder(
        prompt="a",
        model="m",
        options={"size": "auto", "output_compression": 0},
        visibility=Visibility.PRIVATE,
        filename="f",
    )


def test_prompt_count_becomes_the_orders_count() -> None:
    order = order_of(GenerationPrompt(prompt="a", n=4, partial_images=2))
    assert (order.count, order.previews, order.options) == (4, 2, {})


def test_picture_order_has_the_fields_for_the_upstream() -> None:
    order = ORDER.model_copy(update={"inputs": (MASK,), "operation": Operation.EDIT, "options": {"a": None}})
    wanted = picture_order(order, model="m")
    assert (wanted.model, wanted.prompt, wanted.inputs, wanted.operation) == ("m", "a red fox", (MASK,), Operation.EDIT)
    assert wanted.options == {"a": None}


@pytest.mark.parametrize(
    "other",
    [
        {"prompt": "a hen"},
        {"model": "m"},
        {"count": 2},
        {"operation": Operation.EDIT},
        {"options": {"size": "auto"}},
        {"options": {"n": None}},
        {"inputs": (MASK,)},
        {"visibility": Visibility.PUBLIC},
        {"filename": "a.png"},
    ],
    ids=lambda other: next(iter(other)),
)
def test_different_requests_have_different_fingerprints(other: dict[str, object]) -> None:
    assert fingerprint(ORDER.model_copy(update=other)) != fingerprint(ORDER)


def test_fingerprint_ignores_previews_and_option_order() -> None:
    assert re.fullmatch("[0-9a-f]{64}", fingerprint(ORDER))
    assert fingerprint(ORDER.model_copy(update={"previews": 3})) == fingerprint(ORDER)
    one, two = ({"options": dict(pairs)} for pairs in ([("a", 1), ("b", 2)], [("b", 2), ("a", 1)]))
    assert fingerprint(ORDER.model_copy(update=one)) == fingerprint(ORDER.model_copy(update=two))


def test_fingerprint_is_stable_across_releases() -> None:
    """A changed fingerprint would make keys used before an upgrade a mismatch after it."""
    assert fingerprint(ORDER) == hashlib.sha256(b'{"prompt": "a red fox"}').hexdigest()


@pytest.mark.parametrize(
    ("prompt", "pattern"),
    [
        ("A red Fox, 2 hens & a 🦊!", r"a-red-fox-2-hens-a-[0-9a-f]{8}\.png"),
        ("🦊", r"image-[0-9a-f]{8}\.png"),
        ("../../etc/passwd\0", r"etc-passwd-[0-9a-f]{8}\.png"),
        ("word " * 6000, r"(word-){12}[0-9a-f]{8}\.png"),
    ],
    ids=["words", "no words", "path", "long"],
)
def test_filename_is_made_from_the_prompt(prompt: str, pattern: str) -> None:
    (image,) = new_images(_generation(prompt=prompt), (_picture(),))
    assert re.fullmatch(pattern, image.filename)


@pytest.mark.parametrize(
    ("media_type", "extension"),
    [("image/png", ".png"), ("image/jpeg", ".jpg"), ("image/webp", ".webp"), ("image/gif", ".gif")],
)
def test_made_filename_has_the_formats_extension(media_type: str, extension: str) -> None:
    (image,) = new_images(_generation(), (_picture(media_type),))
    assert image.filename.endswith(extension)


@pytest.mark.parametrize(
    ("filename", "second"),
    [
        ("mine 🦊.gif", "mine 🦊-2.gif"),
        ("mine", "mine-2"),
        (".png", ".png-2"),
        ("a.b.c", "a.b-2.c"),
        ("a" * 255, "a" * 250 + "-2"),
        ("a" * 251 + ".png", "a" * 246 + "-2.png"),
    ],
    ids=["extension", "none", "dot file", "dots", "long", "long with extension"],
)
def test_given_filename_is_numbered_from_the_second_picture(filename: str, second: str) -> None:
    first, other = new_images(_generation(pictures=2, filename=filename), (_picture(),) * 2)
    assert (first.filename, other.filename) == (filename, second)
    assert len(other.filename) <= 255


def test_made_filenames_are_unique() -> None:
    images = new_images(_generation(pictures=10), (_picture(),) * 10)
    assert len({image.filename for image in images}) == 10


def test_fewer_pictures_get_the_first_guids() -> None:
    generation = _generation(pictures=3)
    images = new_images(generation, (_picture(),) * 2)
    assert tuple(image.guid for image in images) == generation.image_guids[:2]
