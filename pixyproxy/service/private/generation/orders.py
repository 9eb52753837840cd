"""Turn a request into a claim: everything that is decided before something is bought."""

import hashlib
import json
import re
from typing import get_args

from pixyproxy.core import clock
from pixyproxy.core.exceptions import ImagePromptException
from pixyproxy.core.models.generation import Generation
from pixyproxy.core.models.image import GenerationPrompt, ImagePrompt, NewImage, PictureFormat
from pixyproxy.core.models.order import NewOrder, PictureOrder, ReceivedPicture
from pixyproxy.core.models.principal import Subject
from pixyproxy.data.files.store.local import EXTENSIONS
from pixyproxy.service.private.generation.received import PictureLimits

OPTIONS = {"size", "quality", "background", "output_format", "output_compression", "moderation"}
"""The options of a prompt that are passed to the upstream unchanged."""
SAME_REQUEST = {"operation", "prompt", "model", "count", "options", "inputs", "visibility", "filename"}
"""The fields that identify a request. How a client watches it, previews included, does not."""

SIZE = re.compile(r"([0-9]{1,9})x([0-9]{1,9})")


def require_storable(order: NewOrder, limits: PictureLimits) -> None:
    """Raise ``ImagePromptException`` for an order whose pictures could not be stored, before they are bought."""
    wanted = order.options.get("output_format")
    if wanted is not None and wanted not in get_args(PictureFormat):
        problem = f"Pictures in this output_format cannot be stored. Use one of: {', '.join(get_args(PictureFormat))}."
        raise ImagePromptException(problem, context={"field": "output_format"})
    edges = SIZE.fullmatch(str(order.options.get("size")))
    if edges is not None and int(edges[1]) * int(edges[2]) > limits.max_pixels:
        problem = f"Pictures of this size cannot be stored. Request at most {limits.max_pixels} pixels."
        raise ImagePromptException(problem, context={"field": "size"})


def order_of(prompt: ImagePrompt) -> NewOrder:
    """Return the order in a prompt of the native API."""
    count, previews = (prompt.n, prompt.partial_images) if isinstance(prompt, GenerationPrompt) else (1, 0)
    return NewOrder(
        prompt=prompt.prompt,
        model=prompt.model,
        count=count,
        previews=previews,
        options=prompt.model_dump(mode="json", include=OPTIONS, exclude_none=True),
        visibility=prompt.visibility,
        filename=prompt.filename,
    )


def picture_order(order: NewOrder, *, model: str) -> PictureOrder:
    """Return the part of an order that the upstream needs."""
    fields = set(PictureOrder.model_fields) - {"model"}
    return PictureOrder(model=model, **{name: getattr(order, name) for name in fields})


def fingerprint(order: NewOrder) -> str:
    """Return the digest that identifies equal requests, 64 hex digits."""
    same = order.model_dump(mode="json", include=SAME_REQUEST, exclude_none=True, exclude_defaults=True)
    return hashlib.sha256(json.dumps(same, sort_keys=True).encode()).hexdigest()


def content_of(same_fingerprint: str, subject: Subject) -> str:
    """Return the digest (64 hex digits) that identifies a retry without an Idempotency-Key."""
    return hashlib.sha256(f"{subject}\n{same_fingerprint}".encode()).hexdigest()


def new_images(generation: Generation, pictures: tuple[ReceivedPicture, ...]) -> list[NewImage]:
    """Return the images for a generation's pictures, which may be fewer than ordered."""
    moment = clock.now()
    return [
        NewImage(
            guid=guid,
            tenant_id=generation.tenant_id,
            generation_id=generation.id,
            filename=_filename(generation, index, EXTENSIONS[picture.media_type]),
            prompt=generation.order.prompt,
            visibility=generation.visibility,
            model=generation.order.model,
            created_at=moment,
            updated_at=moment,
            **picture.model_dump(),
        )
        for index, (guid, picture) in enumerate(zip(generation.image_guids, pictures, strict=False))
    ]


def _filename(generation: Generation, index: int, extension: str) -> str:
    """Return the requested name, numbered from the second picture on, or a name made from the prompt.

    Names made from the prompt are unique: ``a-red-fox-1b2c3d4e.png``.
    """
    if generation.filename is not None:
        return generation.filename if index == 0 else _numbered(generation.filename, index + 1)
    words = re.findall(r"[a-z0-9]+", generation.order.prompt[:200].lower())
    slug = "-".join(words)[:60].strip("-") or "image"
    return f"{slug}-{generation.image_guids[index][:8]}{extension}"


def _numbered(filename: str, number: int) -> str:
    stem, dot, extension = filename.rpartition(".")
    named, suffix = (stem, dot + extension) if stem else (filename, "")
    return f"{named[: 250 - len(suffix)]}-{number}{suffix}"
