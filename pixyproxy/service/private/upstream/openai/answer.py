"""Parse a JSON response of the Images API as it arrives."""

from typing import Any

from pydantic_core import from_json

from pixyproxy.core.exceptions import PictureUnusableException, UpstreamAnswerException
from pixyproxy.core.models.order import UpstreamAnswer
from pixyproxy.service.private.upstream.openai.base64_scanner import PLACEHOLDER, Base64Scanner
from pixyproxy.service.private.upstream.openai.delivery import PictureDelivery
from pixyproxy.service.private.upstream.openai.refusals import error_in_answer
from pixyproxy.service.private.upstream.openai.unusable import UnusableAnswer, holds_picture
from pixyproxy.service.private.upstream.openai.usage import read_usage
from pixyproxy.service.private.upstream.upstream import PictureSink


class AnswerReader:
    """Reads a response in pieces and writes at most ``count`` pictures to a sink.

    Raises ``UpstreamAnswerException`` for an invalid response, and the exceptions of the sink. A response with a
    picture that cannot be stored is read to its end and retained; then ``PictureUnusableException`` is raised.
    """

    def __init__(self, *, count: int, sink: PictureSink) -> None:
        self.urls: list[str] = []
        """The URLs of pictures that the response only links to, in order; known once it is finished."""
        self._count = count
        self._sink = sink
        self._json = Base64Scanner()
        self._unusable = UnusableAnswer(sink)
        self._delivered = 0
        self._delivery: PictureDelivery | None = None

    async def take(self, piece: bytes) -> None:
        """Read the next piece, of any length."""
        if self._unusable.failure is not None:
            await self._unusable.keep(piece)
            return
        try:
            for text, last in self._json.split(piece):
                await self._take_base64(text, last=last)
        except UpstreamAnswerException as error:
            # More JSON than any response has beside its pictures: it may hold a picture in another dialect.
            if self._unusable.failure is not None or not holds_picture(self._json.skeleton, is_too_long=True):
                raise
            await self._unusable.begin(error, self._json)
        if self._unusable.failure is not None:
            await self._unusable.keep_json(self._json)

    async def finish(self) -> UpstreamAnswer:
        """Return the response's details beside its pictures, at its end; raise the exception of an error response."""
        if self._unusable.failure is None and self._delivery is not None:
            await self._unusable.begin(UpstreamAnswerException(), self._json, self._delivery.undelivered)
        if self._unusable.failure is not None:
            raise self._unusable.failure
        try:
            return self._finish()
        except UpstreamAnswerException as error:
            if not self._json.pictures and not holds_picture(self._json.skeleton):
                raise
            await self.keep()
            raise PictureUnusableException from error

    async def keep(self) -> None:
        """Retain the answer, whose pictures cannot be stored. Raise the exceptions of the sink."""
        await self._unusable.begin(UpstreamAnswerException(), self._json)

    async def _take_base64(self, text: bytes, *, last: bool) -> None:
        if self._unusable.failure is not None:
            await self._unusable.keep_json(self._json, text)
            return
        if self._delivered == self._count:
            # Ignore pictures beyond the order.
            return
        if self._delivery is None:
            self._delivery = PictureDelivery(self._sink.begin_picture())
        try:
            await self._delivery.take(text, last=last)
        except UpstreamAnswerException as error:
            await self._unusable.begin(error, self._json, self._delivery.undelivered)
            return
        if last:
            self._delivery = None
            self._delivered += 1

    def _finish(self) -> UpstreamAnswer:
        answer = _parse_object(self._json.skeleton)
        data = answer.pop("data", None)
        items = [item for item in data if isinstance(item, dict)] if isinstance(data, list) else []
        with_picture = [item for item in items if PLACEHOLDER in (item.get("b64_json"), item.get("url"))]
        if len(with_picture) != self._json.pictures:
            # The picture is in an unknown member, so it may be anything.
            raise UpstreamAnswerException
        with_url = [item for item in items if item not in with_picture and url_of(item)]
        with_url = with_url[: self._count - self._delivered]
        if not with_picture and not with_url:
            raise error_in_answer(answer) or UpstreamAnswerException
        self.urls = [item["url"] for item in with_url]
        return UpstreamAnswer(
            facts=answer,
            usage=read_usage(answer.get("usage")),
            revised_prompts=tuple(revised_prompt(item) for item in (*with_picture[: self._count], *with_url)),
        )


def revised_prompt(item: dict[str, Any]) -> str | None:
    """Return the revised prompt beside a picture, if there is one."""
    revised = item.get("revised_prompt")
    return revised if isinstance(revised, str) else None


def url_of(item: dict[str, Any]) -> str | None:
    """Return the URL of a picture, if there is one."""
    url = item.get("url")
    return url if isinstance(url, str) and url else None


def _parse_object(text: bytes | bytearray) -> dict[str, Any]:
    try:
        answer = from_json(text, allow_inf_nan=False)
    except ValueError as error:
        raise UpstreamAnswerException from error
    if not isinstance(answer, dict):
        raise UpstreamAnswerException
    return answer
