"""Routes that take a body: who sends it is known and counted before it is read, and what is in it is bounded."""

from collections.abc import Callable, Coroutine
from http import HTTPStatus
from typing import Any

from fastapi import Response
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.requests import Request

from pixyproxy.web.limits import admission_of

MOST_MEMBERS = 100
"""Of an object in a body."""
MOST_ITEMS = 1_000
"""Of a list in a body."""
MOST_VALUES = 10_000
"""Of a body, whatever they are in."""
MOST_BRACKETS = 50_000
"""Of a body, those in its texts too. A megabyte of empty lists takes 0.3 s: garbage is collected as they are made."""


class BoundedRequest(Request):
    """A request whose JSON has so few values that every one of them may be complained of."""

    async def json(self) -> Any:  # noqa: ANN401  (any JSON)
        """Return the body. Raise a 422 where it has too many values: pydantic reports each that is not acceptable."""
        body = await self.body()
        if body.count(b"[") + body.count(b"{") > MOST_BRACKETS:
            raise HTTPException(HTTPStatus.BAD_REQUEST)
        value = await super().json()
        if not _is_bounded(value):
            raise HTTPException(HTTPStatus.UNPROCESSABLE_ENTITY)
        return value


class GuardedRoute(APIRoute):
    """A route that admits a request before its body is read; FastAPI (0.165) reads it before any dependency."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the handler, as FastAPI documents it for routes with a request class of their own."""
        handle = super().get_route_handler()
        if self.body_field is None:
            return handle
        admit = admission_of(self.endpoint)

        async def handle_admitted(request: Request) -> Response:
            await admit(request)
            return await handle(BoundedRequest(request.scope, request.receive))

        return handle_admitted


def _is_bounded(value: object) -> bool:
    """Return whether JSON has no more members, items and values than a body may have."""
    left, pending = MOST_VALUES, [value]
    while pending:
        each = pending.pop()
        if not isinstance(each, dict | list):
            continue
        left -= len(each)
        if left < 0 or len(each) > (MOST_MEMBERS if isinstance(each, dict) else MOST_ITEMS):
            return False
        pending.extend(each.values() if isinstance(each, dict) else each)
    return True
