"""Behaviours of streamed responses: faults and unusual legal forms. Other requests get the normal response."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.support.upstream.behaviours import NORMAL, pour
from tests.support.upstream.events import EVENT_STREAM, Event, error_event

if TYPE_CHECKING:
    from tests.support.upstream.exchange import Exchange


class StreamBehaviour:
    """Behaves normally unless a valid request asks for a stream."""

    async def answer(self, exchange: "Exchange") -> None:
        """Reject, deliver, or stream."""
        if exchange.refusal() or not exchange.order.streams:
            await NORMAL.answer(exchange)
        else:
            await self.stream(exchange)

    async def stream(self, exchange: "Exchange") -> None:
        """Respond to a valid request for a stream."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class StreamVariant(StreamBehaviour):
    """A complete stream, legal but not as OpenAI writes it: other line ends, or comments before and within events."""

    line_end: bytes = b"\n"
    comment: bytes = b""

    async def stream(self, exchange: "Exchange") -> None:
        """Send all events."""
        heartbeat = b":" + self.comment + self.line_end if self.comment else b""
        events = exchange.buy_events(line_end=self.line_end)
        await exchange.send_head(None, content_type=EVENT_STREAM)
        for event in events:
            # A separate comment, then one between the event's first line and its data.
            first, end, rest = event.parts[0].partition(self.line_end)
            separate = heartbeat + self.line_end if heartbeat else b""
            await exchange.write(separate, first, end, heartbeat, rest, *event.parts[1:])
        await exchange.end()


@dataclass(frozen=True, kw_only=True)
class StreamCut(StreamBehaviour):
    """A connection closed after this many events, or in the middle of the next one's data; all is paid for.

    A cut `within` happens at the latest in the last event's data.
    """

    events: int = 1
    within: bool = False

    async def stream(self, exchange: "Exchange") -> None:
        """Send the first events and possibly half an event, then hang up."""
        events = exchange.buy_events()
        whole = min(self.events, len(events) - 1) if self.within else self.events
        await exchange.send_head(None, content_type=EVENT_STREAM)
        await _write_events(exchange, events[:whole])
        if self.within:
            head, picture, _ = events[whole].parts
            await exchange.write(head, picture[: len(picture) // 2])
        exchange.hang_up()


@dataclass(frozen=True, kw_only=True)
class StreamError(StreamBehaviour):
    """An `error` event after the first partial picture, or at once if none is requested; nothing is bought."""

    message: str = "The server had an error."
    kind: str = "server_error"
    code: str = "server_error"

    async def stream(self, exchange: "Exchange") -> None:
        """Send a partial picture and the error, then end cleanly."""
        exchange.settle(bought=False)
        events = exchange.buy_events()
        await exchange.send_head(None, content_type=EVENT_STREAM)
        await _write_events(exchange, _partials(events)[:1])
        await _write_events(exchange, [error_event(self.message, kind=self.kind, code=self.code)])
        await exchange.end()


@dataclass(frozen=True, kw_only=True)
class StreamHang(StreamBehaviour):
    """Nothing after the first event before `FakeUpstream.release`, which sends the rest."""

    async def stream(self, exchange: "Exchange") -> None:
        """Send the first event, wait, send the others."""
        events = exchange.buy_events()
        await exchange.send_head(None, content_type=EVENT_STREAM)
        # Without partial pictures, the first event would be the whole stream, so only the headers are sent before the
        # wait.
        sent = _partials(events)[:1]
        await _write_events(exchange, sent)
        await exchange.wait_for_release()
        await _write_events(exchange, events[len(sent) :])
        await exchange.end()


@dataclass(frozen=True, kw_only=True)
class StreamIncomplete(StreamBehaviour):
    """A stream that ends cleanly, but without its last completed event, which is paid for."""

    async def stream(self, exchange: "Exchange") -> None:
        """Send all events but the last."""
        events = exchange.buy_events()
        await exchange.send_head(None, content_type=EVENT_STREAM)
        await _write_events(exchange, events[:-1])
        await exchange.end()


@dataclass(frozen=True, kw_only=True)
class StreamInsertion(StreamBehaviour):
    """The normal stream with unexpected bytes before its last event."""

    inserted: bytes

    async def stream(self, exchange: "Exchange") -> None:
        """Send all events, and the bytes between them."""
        *events, last = exchange.buy_events()
        await exchange.send_head(None, content_type=EVENT_STREAM)
        await _write_events(exchange, [*events, Event("", (self.inserted,)), last])
        await exchange.end()


@dataclass(frozen=True, kw_only=True)
class StreamFlood(StreamBehaviour):
    """A completed event whose one data line is `megabytes` MB long, generated while it is sent."""

    megabytes: int = 500

    async def stream(self, exchange: "Exchange") -> None:
        """Send the flood in place of the last event's picture, holding at most one piece of it in memory."""
        *events, last = exchange.buy_events()
        head, _, tail = last.parts
        await exchange.send_head(None, content_type=EVENT_STREAM)
        await _write_events(exchange, events)
        await exchange.write(head)
        await pour(exchange, megabytes=self.megabytes)
        await exchange.write(tail)
        await exchange.end()


def _partials(events: Sequence[Event]) -> list[Event]:
    return [event for event in events if not event.completes]


async def _write_events(exchange: "Exchange", events: Sequence[Event]) -> None:
    for event in events:
        await exchange.write(*event.parts)


STREAM_CRLF = StreamVariant(line_end=b"\r\n")
STREAM_HEARTBEATS = StreamVariant(comment=b" keep-alive")
STREAM_CRLF_HEARTBEATS = StreamVariant(line_end=b"\r\n", comment=b" keep-alive")
STREAM_CUT_BEFORE_EVENTS = StreamCut(events=0)
STREAM_CUT = StreamCut()
STREAM_CUT_WITHIN = StreamCut(within=True)
STREAM_ERROR = StreamError()
STREAM_HANG = StreamHang()
STREAM_INCOMPLETE = StreamIncomplete()
STREAM_GARBAGE_LINE = StreamInsertion(inserted=b"%%% no field of an event %%%\n")
STREAM_BROKEN_DATA = StreamInsertion(inserted=b"event: image_generation.completed\ndata: {this is no JSON\n\n")
STREAM_FLOOD = StreamFlood()
