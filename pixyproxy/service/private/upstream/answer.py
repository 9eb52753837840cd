"""Reading a JSON answer of the Images API as it arrives."""

from typing import Any

from pydantic_core import from_json

from pixyproxy.core.exceptions import UpstreamAnswerException
from pixyproxy.core.models.order import UpstreamAnswer
from pixyproxy.service.private.upstream.base64_scanner import Base64Scanner
from pixyproxy.service.private.upstream.delivery import PictureDelivery
from pixyproxy.service.private.upstream.upstream import PictureSink
from pixyproxy.service.private.upstream.usage import read_usage


class AnswerReader:
    """Takes an answer in pieces and puts its pictures into a sink, ``count`` of them at the most.

    Raises ``UpstreamAnswerException`` for what is no such answer, and what the sink raises.
    """

    def __init__(self, *, count: int, sink: PictureSink) -> None:
        self._count = count
        self._sink = sink
        self._json = Base64Scanner()
        self._delivered = 0
        self._delivery: PictureDelivery | None = None

    async def take(self, piece: bytes) -> None:
        """Take the next piece, of any length."""
        for text, last in self._json.split(piece):
            if self._delivered == self._count:
                # More than was ordered has no place to go to.
                continue
            if self._delivery is None:
                self._delivery = PictureDelivery(self._sink.begin_picture())
            await self._delivery.take(text, last=last)
            if last:
                self._delivery = None
                self._delivered += 1

    def finish(self) -> UpstreamAnswer:
        """What the answer says beside its pictures, once it is whole."""
        answer = _parse_object(self._json.skeleton)
        data = answer.pop("data", None)
        items = [item for item in data if _has_picture(item)] if isinstance(data, list) else []
        if not items or len(items) != self._json.pictures:
            # Something under b64_json is no string, or stands elsewhere: who knows what it is a picture of.
            raise UpstreamAnswerException
        return UpstreamAnswer(
            facts=answer,
            usage=read_usage(answer.get("usage")),
            revised_prompts=tuple(revised_prompt(item) for item in items[: self._count]),
        )


def revised_prompt(told: dict[str, Any]) -> str | None:
    """What the upstream made of the prompt, where it says so beside a picture."""
    revised = told.get("revised_prompt")
    return revised if isinstance(revised, str) else None


def _parse_object(text: bytes | bytearray) -> dict[str, Any]:
    try:
        answer = from_json(text, allow_inf_nan=False)
    except ValueError as error:
        raise UpstreamAnswerException from error
    if not isinstance(answer, dict):
        raise UpstreamAnswerException
    return answer


def _has_picture(item: object) -> bool:
    """Whether an item of ``data`` had a picture, which the scanner has taken out."""
    return isinstance(item, dict) and item.get("b64_json") == ""
