"""Route the pictures of a stream's events."""

from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any

from pydantic_core import from_json

from pixyproxy.core.exceptions import ImageException
from pixyproxy.core.models.order import PictureOrder
from pixyproxy.service.private.upstream.openai.base64_scanner import Base64Scanner
from pixyproxy.service.private.upstream.openai.delivery import PictureDelivery
from pixyproxy.service.private.upstream.openai.held_picture import HeldPicture
from pixyproxy.service.private.upstream.upstream import PictureSink, PictureWriter

UNNAMED = frozenset({"", "message"})
"""Event names without meaning; the second is the standard's default name."""


class Kind(Enum):
    """The kind of an event. Its family (``image_generation`` or ``image_edit``) makes no difference here."""

    FINISHED = auto()
    PREVIEW = auto()
    OTHER = auto()
    UNKNOWN = auto()
    """Not known yet."""


@dataclass
class Event:
    """One event while it arrives."""

    name: str = ""
    json: Base64Scanner = field(default_factory=Base64Scanner)
    kind: Kind = Kind.UNKNOWN
    """The kind as of the start of its picture."""
    has_picture: bool = False
    delivery: PictureDelivery | None = None
    """The delivery of its picture, until finished, abandoned or unwanted."""
    held: HeldPicture | None = None
    failure: ImageException | None = None
    """Why the held picture cannot be used."""

    def read(self, *, whole: bool = True) -> dict[str, Any] | None:
        """Return the object in its data, or None; unless ``whole``, an incomplete object's complete members."""
        try:
            said = from_json(self.json.skeleton, allow_inf_nan=False, allow_partial=not whole)
        except ValueError:
            return None
        return said if isinstance(said, dict) else None


class EventPictures:
    """Writes the pictures of a stream's events to a sink: one per event, and no more than ordered."""

    def __init__(self, order: PictureOrder, sink: PictureSink) -> None:
        self.finished = 0
        """The number of finished pictures that the sink has."""
        self._order = order
        self._sink = sink
        self._previews = 0
        """The previews since the last finished picture."""

    async def take(self, event: Event, base64: bytes, *, last: bool) -> None:
        """Accept the next piece of an event's picture. Raise the sink's exceptions for a finished picture."""
        if not event.has_picture:
            event.has_picture = True
            event.delivery = self._begin(event)
        if event.delivery is None:
            return
        try:
            await event.delivery.take(base64, last=last)
        except ImageException as error:
            if event.kind is Kind.FINISHED:
                raise
            event.failure, event.delivery = error, None
            return
        if last:
            event.delivery = None
            self._count(event.kind)

    async def place_held(self, event: Event, said: dict[str, Any]) -> None:
        """Route the picture of a complete event whose kind was known only from its last members.

        Raise the sink's exceptions for a finished picture.
        """
        event.kind = kind_of(event.name, said)
        writer = self._writer(event.kind, said)
        if writer is None or event.held is None:
            return
        try:
            if event.failure is not None:
                raise event.failure
            delivery = PictureDelivery(writer)
            async for piece in event.held.pieces():
                await delivery.take(piece, last=False)
            await delivery.take(b"", last=True)
        except ImageException:
            if event.kind is Kind.FINISHED:
                raise
        self._count(event.kind)

    def _begin(self, event: Event) -> PictureDelivery | None:
        """Return the delivery of a starting picture; None if it is not wanted."""
        said = event.read(whole=False) or {}
        event.kind = kind_of(event.name, said)
        if event.kind is Kind.UNKNOWN:
            event.held = HeldPicture(self._sink.open_temporary)
            return PictureDelivery(event.held, is_raw=True)
        writer = self._writer(event.kind, said)
        return None if writer is None else PictureDelivery(writer)

    def _writer(self, kind: Kind, said: dict[str, Any]) -> PictureWriter | None:
        if kind is Kind.FINISHED and self.finished < self._order.count:
            return self._sink.begin_picture()
        if kind is Kind.PREVIEW:
            # OpenAI writes the number after the picture, so it usually has to be counted.
            number = said.get("partial_image_index", self._previews)
            self._previews += 1
            if isinstance(number, int) and 0 <= number < self._order.previews:
                return self._sink.begin_preview(number)
        return None

    def _count(self, kind: Kind) -> None:
        if kind is Kind.FINISHED:
            self.finished += 1
            self._previews = 0


def kind_of(name: str, said: dict[str, Any]) -> Kind:
    """Return the kind of an event from the ``type`` in its data, or else from its name."""
    kind = said.get("type", name)
    if not isinstance(kind, str) or kind in UNNAMED:
        return Kind.UNKNOWN
    if kind.endswith(".completed"):
        return Kind.FINISHED
    return Kind.PREVIEW if kind.endswith(".partial_image") else Kind.OTHER
