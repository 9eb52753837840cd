"""Parse a streamed response of the Images API as it arrives."""

from typing import Any

from pixyproxy.core.exceptions import UpstreamAnswerException, UpstreamSilentException
from pixyproxy.core.models.order import PictureOrder, UpstreamAnswer
from pixyproxy.service.private.upstream.openai.answer import revised_prompt, url_of
from pixyproxy.service.private.upstream.openai.event_lines import EventLines, Part
from pixyproxy.service.private.upstream.openai.event_pictures import Event, EventPictures, Kind, kind_of
from pixyproxy.service.private.upstream.openai.refusals import error_in_answer, exception_of
from pixyproxy.service.private.upstream.openai.unusable import UnusableAnswer, holds_picture
from pixyproxy.service.private.upstream.openai.usage import add_usages, read_usage
from pixyproxy.service.private.upstream.upstream import PictureSink

NO_FACTS = frozenset({"b64_json", "type", "url"})
BETWEEN_EVENTS = b"\n\ndata: "


class EventReader:
    """Reads a stream in pieces and writes its pictures and previews to a sink, no more than ordered.

    The caller closes it. It raises the sink's exceptions for a finished picture; a preview that fails is skipped. An
    error event raises its exception, unless a finished picture came before it. A stream with a picture that cannot be
    stored is read to its end and retained; then ``PictureUnusableException`` is raised.
    """

    def __init__(self, order: PictureOrder, sink: PictureSink) -> None:
        self.urls: list[str] = []
        """The URLs of pictures that the stream only links to, in order."""
        self._count = order.count
        self._pictures = EventPictures(order, sink)
        self._lines = EventLines()
        self._event = Event()
        self._unusable = UnusableAnswer(sink)
        self._said: list[dict[str, Any] | None] = []
        """The other members of each event with an ordered finished picture; None if it broke off."""
        self._with_url = b""
        """The events that hold URLs."""

    @property
    def pictures(self) -> int:
        """The number of finished pictures, linked ones included."""
        return self._pictures.finished + len(self.urls)

    async def take(self, piece: bytes) -> None:
        """Read the next piece, of any length."""
        if self._unusable.failure is not None:
            await self._unusable.keep(piece)
            return
        for part, text in self._lines.split(piece):
            if self._unusable.failure is not None:
                await self._unusable.keep(BETWEEN_EVENTS if part is Part.END else text if part is Part.DATA else b"")
            elif part is Part.NAME:
                self._event.name = text.decode(errors="replace")
            elif part is Part.DATA:
                await self._take_data(text)
            elif self._event.delivery is not None and self._event.kind is Kind.FINISHED:
                # The event ends before its picture does.
                await self._give_up(UpstreamAnswerException(), self._event.delivery.undelivered)
            else:
                await self._end_event()

    async def finish(self) -> UpstreamAnswer:
        """Return the stream's details beside its pictures, however the stream ended.

        Raise ``UpstreamSilentException`` if no finished picture came.
        """
        if self._unusable.failure is None:
            # The last event counts without its empty line if its object is complete.
            await self._end_event()
        if self._unusable.failure is not None:
            raise self._unusable.failure
        if not self.pictures:
            raise UpstreamSilentException
        whole = [said for said in self._said if said is not None]
        last = whole[-1] if whole else {}
        return UpstreamAnswer(
            facts={name: value for name, value in last.items() if name not in NO_FACTS},
            usage=add_usages([read_usage(said and said.get("usage")) for said in self._said]),
            revised_prompts=tuple(said and revised_prompt(said) for said in self._said[: self.pictures]),
        )

    async def keep(self) -> None:
        """Retain the events with URLs, whose pictures cannot be stored. Raise the sink's exceptions."""
        await self._unusable.keep(self._with_url)

    def close(self) -> None:
        """Discard the held picture of an unfinished event."""
        if self._event.held is not None:
            self._event.held.close()

    async def _take_data(self, text: bytes) -> None:
        event = self._event
        try:
            for base64, last in event.json.split(text):
                if self._unusable.failure is not None:
                    await self._unusable.keep_json(event.json, base64)
                else:
                    await self._take_base64(event, base64, last=last)
        except UpstreamAnswerException as error:
            # More JSON than any event has beside its picture: it may hold a picture in another dialect.
            if self._unusable.failure is not None or not holds_picture(event.json.skeleton, is_too_long=True):
                raise
            await self._give_up(error)
        if self._unusable.failure is not None:
            await self._unusable.keep_json(event.json)

    async def _take_base64(self, event: Event, base64: bytes, *, last: bool) -> None:
        try:
            await self._pictures.take(event, base64, last=last)
        except UpstreamAnswerException as error:
            await self._give_up(error, b"" if event.delivery is None else event.delivery.undelivered)

    async def _give_up(self, error: UpstreamAnswerException, text: bytes = b"") -> None:
        """Retain the event and everything after it."""
        await self._unusable.keep(b"data: ")
        await self._unusable.begin(error, self._event.json, text)

    async def _end_event(self) -> None:
        event = self._event
        said = event.read()
        if event.held is not None and said is not None:
            try:
                await self._pictures.place_held(event, said)
            except UpstreamAnswerException as error:
                await self._give_up(error)
                async for piece in event.held.pieces():
                    await self._unusable.keep(piece)
        if event.has_picture:
            # Pictures beyond the order are not charged, and retaining them would be unbounded.
            if event.kind is Kind.FINISHED and len(self._said) < self._count:
                self._said.append(said)
        elif said is not None and kind_of(event.name, said) is Kind.FINISHED and url_of(said):
            self._note_url(event, said)
        elif not self.pictures:
            _raise_error(event, said or {})
        self.close()
        self._event = Event()

    def _note_url(self, event: Event, said: dict[str, Any]) -> None:
        if len(self._said) < self._count:
            self._said.append(said)
            self.urls.append(said["url"])
            self._with_url += b"data: " + event.json.skeleton + b"\n\n"


def _raise_error(event: Event, said: dict[str, Any]) -> None:
    """Raise the exception of an error event; its data may be the error or contain it."""
    error = error_in_answer(said)
    if error is None and "error" in (event.name, said.get("type")):
        error = exception_of(said)
    if error is not None:
        raise error
