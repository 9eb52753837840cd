"""Reading a streamed answer of the Images API as it arrives."""

from typing import Any

from pixyproxy.core.exceptions import UpstreamAnswerException, UpstreamSilentException
from pixyproxy.core.models.order import PictureOrder, UpstreamAnswer
from pixyproxy.service.private.upstream.answer import revised_prompt
from pixyproxy.service.private.upstream.event_lines import EventLines, Part
from pixyproxy.service.private.upstream.event_pictures import Event, EventPictures, Kind
from pixyproxy.service.private.upstream.refusals import error_of_event
from pixyproxy.service.private.upstream.upstream import PictureSink
from pixyproxy.service.private.upstream.usage import add_usages, read_usage

NO_FACTS = frozenset({"b64_json", "type"})


class EventReader:
    """Takes a stream in pieces and puts its pictures and previews into a sink, no more than were ordered.

    To be closed. Raises what the sink raises for a finished picture; a preview that fails is left out. An
    error that the upstream puts into the stream is raised as what it means, unless a finished picture came before it.
    """

    def __init__(self, order: PictureOrder, sink: PictureSink) -> None:
        self._count = order.count
        self._pictures = EventPictures(order, sink)
        self._lines = EventLines()
        self._event = Event()
        self._said: list[dict[str, Any] | None] = []
        """What every event with a finished picture that was ordered says beside it; None of one that broke off."""

    @property
    def pictures(self) -> int:
        """How many finished pictures the sink has."""
        return self._pictures.finished

    async def take(self, piece: bytes) -> None:
        """Take the next piece, of any length."""
        for part, text in self._lines.split(piece):
            if part is Part.NAME:
                self._event.name = text.decode(errors="replace")
            elif part is Part.DATA:
                for base64, last in self._event.json.split(text):
                    await self._pictures.take(self._event, base64, last=last)
            elif self._event.delivery is not None and self._event.kind is Kind.FINISHED:
                # The event ends before its picture does.
                raise UpstreamAnswerException
            else:
                await self._end_event()

    async def finish(self) -> UpstreamAnswer:
        """What the stream said beside its pictures, once it is over, however it ended.

        Raises ``UpstreamSilentException`` if no finished picture came.
        """
        # The last event counts without its empty line too, if only its object is whole.
        await self._end_event()
        if not self.pictures:
            raise UpstreamSilentException
        whole = [said for said in self._said if said is not None]
        last = whole[-1] if whole else {}
        return UpstreamAnswer(
            facts={name: value for name, value in last.items() if name not in NO_FACTS},
            usage=add_usages([read_usage(said and said.get("usage")) for said in self._said]),
            revised_prompts=tuple(said and revised_prompt(said) for said in self._said[: self.pictures]),
        )

    def close(self) -> None:
        """Give up what is held of an event."""
        if self._event.held is not None:
            self._event.held.close()

    async def _end_event(self) -> None:
        event = self._event
        said = event.read()
        if event.held is not None and said is not None:
            await self._pictures.place_held(event, said)
        if event.has_picture:
            # What comes beyond the order is not charged either, and would be kept without end.
            if event.kind is Kind.FINISHED and len(self._said) < self._count:
                self._said.append(said)
        elif not self.pictures:
            _raise_error(event, said or {})
        self.close()
        self._event = Event()


def _raise_error(event: Event, said: dict[str, Any]) -> None:
    """Raise what an event means that is an error; its data may be the error, or hold it."""
    error = said.get("error")
    if isinstance(error, dict):
        raise error_of_event(error)
    if "error" in (event.name, said.get("type")):
        raise error_of_event(said)
