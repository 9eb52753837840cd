"""Routes that identify and count the caller before anything else, and limit the values in a JSON body."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine
from http import HTTPStatus
from typing import Any

from fastapi import Response
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.requests import Request

from pixyproxy.web.middleware.request_log import log_request

MOST_MEMBERS = 100
"""Of each object in a body."""
MOST_ITEMS = 1_000
"""Of each list in a body."""
MOST_VALUES = 10_000
"""Of a body, including nested values."""
MOST_BRACKETS = 50_000
"""Of a body, including those in strings. A megabyte of empty lists takes 0.3 s, due to garbage collection."""


class BoundedRequest(Request):
    """A request whose JSON has few enough values for each to be reported as an error."""

    async def json(self) -> Any:  # noqa: ANN401  (any JSON)
        """Return the body. Raise a 422 if it has too many values, since pydantic reports each invalid one."""
        body = await self.body()
        if body.count(b"[") + body.count(b"{") > MOST_BRACKETS:
            raise HTTPException(HTTPStatus.BAD_REQUEST)
        value = await super().json()
        if not _is_bounded(value):
            raise HTTPException(HTTPStatus.UNPROCESSABLE_ENTITY)
        return value


class Admission(ABC):
    """A dependency that is called before the body of the request is read, and again as a normal dependency.

    The second call must return the same result and count nothing.
    """

    @abstractmethod
    async def __call__(self, request: Request) -> object:
        """Identify and count the caller. Raise an exception to reject the request."""


class GuardedRoute(APIRoute):
    """A route that admits a request before it reads anything else of it.

    FastAPI (0.165) reads the body before it calls any dependency, and calls dependencies in the order of parameters.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the handler, as FastAPI documents it for custom request classes."""
        handle = super().get_route_handler()
        admissions = [each.call for each in self.dependant.dependencies if isinstance(each.call, Admission)]

        has_body = self.body_field is not None

        async def handle_admitted(request: Request) -> Response:
            await log_request(request)
            for admit in admissions:
                await admit(request)
            return await handle(BoundedRequest(request.scope, request.receive) if has_body else request)

        return handle_admitted


def _is_bounded(value: object) -> bool:
    """Return whether a JSON value is within the limits on members, items and values."""
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
