"""Which of a stream's pictures goes where."""

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
"""Names of an event that say nothing; the second is what the standard calls one without a name."""


class Kind(Enum):
    """What an event is. Its family (``image_generation`` or ``image_edit``) makes no difference here."""

    FINISHED = auto()
    PREVIEW = auto()
    OTHER = auto()
    UNKNOWN = auto()
    """Nothing has said it yet."""


@dataclass
class Event:
    """One event while it arrives."""

    name: str = ""
    json: Base64Scanner = field(default_factory=Base64Scanner)
    kind: Kind = Kind.UNKNOWN
    """As of the time when its picture began."""
    has_picture: bool = False
    delivery: PictureDelivery | None = None
    """The way of its picture, until that is finished, given up or not wanted."""
    held: HeldPicture | None = None
    failure: ImageException | None = None
    """Why what is held cannot be used."""

    def read(self, *, whole: bool = True) -> dict[str, Any] | None:
        """The object that is its data; if it need not be whole, with those members that are. None: there is none."""
        try:
            said = from_json(self.json.skeleton, allow_inf_nan=False, allow_partial=not whole)
        except ValueError:
            return None
        return said if isinstance(said, dict) else None


class EventPictures:
    """Puts the pictures of a stream's events into a sink: one an event, and no more than were ordered."""

    def __init__(self, order: PictureOrder, sink: PictureSink) -> None:
        self.finished = 0
        """How many finished pictures the sink has."""
        self._order = order
        self._sink = sink
        self._previews = 0
        """Since the last finished picture."""

    async def take(self, event: Event, base64: bytes, *, last: bool) -> None:
        """Take the next piece of an event's picture. Raises what the sink raises, if it is a finished one's."""
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
        """Put the picture of a whole event where it belongs, if only its last members said what it is.

        Raises what the sink raises, if it is a finished one's.
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
        """The way of the picture that begins; None where nobody takes it."""
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
            # OpenAI writes the number behind the picture, so mostly it has to be counted.
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
    """What an event is by the ``type`` in its data, or else by its name."""
    kind = said.get("type", name)
    if not isinstance(kind, str) or kind in UNNAMED:
        return Kind.UNKNOWN
    if kind.endswith(".completed"):
        return Kind.FINISHED
    return Kind.PREVIEW if kind.endswith(".partial_image") else Kind.OTHER
