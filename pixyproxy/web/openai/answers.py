"""Responses in OpenAI's format, with the GUIDs of the images. Pictures are encoded while they are sent."""

import itertools
import json
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastapi import Response
from fastapi.responses import JSONResponse
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from pixyproxy.core.models.generation import Generation, GenerationWithImages
from pixyproxy.core.models.image import ImageGuid, StoredImage
from pixyproxy.core.models.order import Operation
from pixyproxy.web.presentation import content_path
from pixyproxy.web.protocol.base64_body import base64_length, with_pictures
from pixyproxy.web.protocol.server_sent_events import event_with_picture

EVENT_NAMES = {Operation.GENERATE: "image_generation", Operation.EDIT: "image_edit"}
FORMATS = {"image/png": "png", "image/jpeg": "jpeg", "image/webp": "webp", "image/gif": "gif"}
TOLD_OF_EVENTS = ("background", "quality", "size")
"""Members of every event about a picture: the upstream's value, else the ordered one, else ``auto``."""


@dataclass(frozen=True)
class StoredPictures:
    """A stored generation and the contents of its images in order, in memory or as files."""

    found: GenerationWithImages
    contents: Sequence[bytes | Path]


class HeldResponse(StreamingResponse):
    """A response held in memory, sent without watching for a disconnect as longer responses do."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002  (ASGI's arguments)
        """Send the whole response."""
        await self.stream_response(send)
        if self.background is not None:
            await self.background()


def answer_with_urls(found: GenerationWithImages, *, public_url: str) -> Response:
    """Return the response to ``response_format=url``, with permanent URLs."""
    data = [
        {"url": public_url + content_path(image.guid), **_about(found.generation, image.guid)} for image in found.images
    ]
    return JSONResponse({**_facts(found.generation), "data": data})


def answer_with_pictures(pictures: StoredPictures) -> Response:
    """Return the response with each picture in ``b64_json``; its length is known before any file is read."""
    found = pictures.found
    parts = [_json(_facts(found.generation))[:-1] + b', "data": [{"b64_json": "']
    parts += [
        b'", ' + _json(_about(found.generation, image.guid))[1:] + (b', {"b64_json": "' if following else b"]}")
        for image, following in itertools.zip_longest(found.images, found.images[1:])
    ]
    length = sum(map(len, parts)) + sum(base64_length(image.byte_size) for image in found.images)
    kind = HeldResponse if all(isinstance(content, bytes) for content in pictures.contents) else StreamingResponse
    written = with_pictures(parts, pictures.contents)
    return kind(written, media_type="application/json", headers={"Content-Length": str(length)})


async def completed_events(pictures: StoredPictures) -> AsyncGenerator[bytes, None]:
    """Yield an event for each picture; the last one has the usage of all."""
    generation, images = pictures.found.generation, pictures.found.images
    name = f"{EVENT_NAMES[generation.order.operation]}.completed"
    for number, (image, content) in enumerate(zip(images, pictures.contents, strict=True), start=1):
        data = _told(name, generation, image) | {"guid": image.guid, "generation": generation.guid}
        usage = _facts(generation).get("usage") if number == len(images) else None
        async for piece in event_with_picture(name, data | ({"usage": usage} if usage else {}), content):
            yield piece


async def partial_events(generation: Generation, index: int, path: Path) -> AsyncGenerator[bytes, None]:
    """Yield the event of a preview."""
    name = f"{EVENT_NAMES[generation.order.operation]}.partial_image"
    data = _told(name, generation, None) | {"partial_image_index": index}
    async for piece in event_with_picture(name, data, path):
        yield piece


def _facts(generation: Generation) -> dict[str, Any]:
    """Return the upstream's response members beside the pictures, and the generation's GUID."""
    facts = {} if generation.answer is None else generation.answer.facts
    return {"created": int(generation.created_at.timestamp()), **facts, "generation": generation.guid}


def _about(generation: Generation, guid: ImageGuid) -> dict[str, Any]:
    # The index among all pictures of the generation, some of which may have been deleted.
    index = generation.image_guids.index(guid)
    prompts = () if generation.answer is None else generation.answer.revised_prompts
    revised = prompts[index] if index < len(prompts) else None
    return {"guid": guid} | ({} if revised is None else {"revised_prompt": revised})


def _told(name: str, generation: Generation, image: StoredImage | None) -> dict[str, Any]:
    options, facts = generation.order.options, _facts(generation)
    own = "png" if image is None else FORMATS[image.media_type]
    return {
        "type": name,
        "created_at": facts["created"],
        "output_format": facts.get("output_format") or options.get("output_format") or own,
        **{key: facts.get(key) or options.get(key) or "auto" for key in TOLD_OF_EVENTS},
    }


def _json(value: dict[str, Any]) -> bytes:
    return json.dumps(value).encode("ascii")
