"""Requests that OpenAI's SDKs send again by themselves, after a timeout or a lost connection, are still the same ones.

The SDKs name no Idempotency-Key, but say how often they have sent a request (``x-stainless-retry-count``). So each of
their requests gets a key of its own here, and one that is sent again gets the key of a request that it can only be the
repetition of: from the same caller, with the same content, its connection gone and its answer undelivered. Every such
request is repeated by one other at the most, so that equal requests that are meant to be several stay several.

This is known for as long as the process runs; an Idempotency-Key holds over all processes and for good.
"""

import asyncio
import hashlib
import re
import uuid
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from weakref import ReferenceType, ref

from fastapi import Response
from starlette.background import BackgroundTask
from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.responses import StreamingResponse

from pixyproxy.core.exceptions import PixyProxyException
from pixyproxy.core.models.principal import Subject
from pixyproxy.data.threads import run_in_thread
from pixyproxy.web.errors import describe
from pixyproxy.web.openai.envelope import may_be_repeated
from pixyproxy.web.openai.requests import is_form

RETRY_COUNT = "x-stainless-retry-count"
"""0 for a request that is sent for the first time (openai 3.54)."""
KEPT_SECONDS = 3600
"""How long a request may be repeated, from when it was last sent: longer than an SDK waits by default, 600 s."""
PIECE_BYTES = 256 * 1024


@dataclass(frozen=True, eq=False)
class Asked:
    """One sending of a request. Without a ``request``, which tells whether its client is gone, nobody follows it.

    Every sending of the same request has the same key. The request is held by those who answer it, and not here: it
    takes 10 KB and its body.
    """

    key: str | None
    content: str = ""
    request: ReferenceType[Request] | None = None

    async def is_lost(self) -> bool:
        """Whether the client is gone, as it is for a request that is over: the answer, if there was one, is sent."""
        request = None if self.request is None else self.request()
        return request is None or await request.is_disconnected()


@dataclass(frozen=True)
class Repeats:
    """The requests of one process that were not answered yet, by content, then by key, the newest sending of each."""

    unanswered: dict[str, dict[str, tuple[Asked, asyncio.TimerHandle]]] = field(default_factory=dict)

    @asynccontextmanager
    async def recognize(
        self, request: Request, *, subject: Subject, idempotency_key: str | None
    ) -> AsyncIterator[Asked]:
        """The request, with the client's own Idempotency-Key or the one that it gets here."""
        count = request.headers.get(RETRY_COUNT, "")
        if idempotency_key is not None or re.fullmatch(r"[0-9]{1,4}", count) is None:
            yield Asked(idempotency_key)
            return
        content = await _digest(request, subject)
        key = await self._take_over(content) if int(count) else None
        asked = Asked(key or str(uuid.uuid4()), content, ref(request))
        self._keep(asked)
        try:
            yield asked
        except PixyProxyException as error:
            # If the client is told to ask again, then for this very one, whatever became of it.
            if not may_be_repeated(describe(request, error)):
                await self._answered(asked, request)
            raise

    async def answer_with(self, response: Response, asked: Asked) -> Response:
        """The response, whose end is the end of the request, unless the client is gone by then."""
        # Whoever answers holds it until then.
        request = None if asked.request is None else asked.request()
        if isinstance(response, StreamingResponse):
            told = self._told(response.body_iterator, asked, request)
            response.body_iterator = told
            # What a client did not stay for would be left to the garbage collector, an open file with it.
            response.background = BackgroundTask(told.aclose)
        else:
            await self._answered(asked, request)
        return response

    async def _take_over(self, content: str) -> str | None:
        """The key of the newest request of this content that lost its client, for one repetition alone."""
        for key, (asked, _) in reversed(list(self.unanswered.get(content, {}).items())):
            # Another repetition may have taken it meanwhile.
            if await asked.is_lost() and self._forget(asked):
                return key
        return None

    def _keep(self, asked: Asked) -> None:
        expiry = asyncio.get_running_loop().call_later(KEPT_SECONDS, self._forget, asked)
        self.unanswered.setdefault(asked.content, {})[asked.key or ""] = asked, expiry

    def _forget(self, asked: Asked) -> bool:
        """Whether this sending was the newest of its request, which is not known any more."""
        sendings = self.unanswered.get(asked.content, {})
        newest, expiry = sendings.get(asked.key or "", (None, None))
        if newest is not asked or expiry is None:
            return False
        expiry.cancel()
        del sendings[asked.key or ""]
        if not sendings:
            del self.unanswered[asked.content]
        return True

    async def _answered(self, asked: Asked, request: Request | None) -> None:
        if request is not None and not await request.is_disconnected():
            self._forget(asked)

    async def _told(
        self, pieces: AsyncIterable[str | bytes | memoryview], asked: Asked, request: Request | None
    ) -> AsyncGenerator[str | bytes | memoryview, None]:
        async for piece in pieces:
            yield piece
        await self._answered(asked, request)


async def _digest(request: Request, subject: Subject) -> str:
    """Names a request's content and who sent it. The boundary of a form, another each time, is no part of it."""
    digest = hashlib.sha256(f"{subject}\n{request.url.path}\n".encode())
    if not is_form(request):
        digest.update(await request.body())
        return digest.hexdigest()
    # It was read before, and so is not read again.
    for name, value in (await request.form()).multi_items():
        if isinstance(value, UploadFile):
            digest.update(repr((name, await run_in_thread(_digest_of_file, value))).encode())
        else:
            digest.update(repr((name, value)).encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def _digest_of_file(upload: UploadFile) -> str:
    digest = hashlib.sha256()
    while piece := upload.file.read(PIECE_BYTES):
        digest.update(piece)
    upload.file.seek(0)
    return digest.hexdigest()
