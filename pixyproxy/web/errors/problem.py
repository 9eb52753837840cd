"""The two forms of an error: problem JSON (RFC 9457), and OAuth's (RFC 6749 §5.2) at its endpoints."""

import json
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from fastapi.responses import Response

from pixyproxy.core.logs import current_request_id

PROBLEM_MEDIA_TYPE = "application/problem+json"
OAUTH_PATHS = frozenset({"/auth/token", "/auth/revoke", "/auth/introspect"})

OAUTH_CODES = frozenset(
    {
        "invalid_request",
        "invalid_client",
        "invalid_grant",
        "invalid_scope",
        "unauthorized_client",
        "unsupported_grant_type",
    }
)
OAUTH_CODE_OF_STATUS = {401: "invalid_client", 403: "access_denied", 429: "temporarily_unavailable"}
"""For what the standard has no code of its own; the code that we give stands beside it."""


@dataclass(frozen=True)
class Problem:
    """An answer in the making: RFC 9457's members, our ``code``, and further members and headers."""

    status: int
    code: str
    detail: str
    members: dict[str, Any]
    headers: dict[str, str]


def problem_response(problem: Problem) -> Response:
    """Problem details, which name the request that the log tells more of."""
    body = {
        "type": f"urn:pixyproxy:error:{problem.code}",
        "title": HTTPStatus(problem.status).phrase,
        "status": problem.status,
        "detail": problem.detail,
        "code": problem.code,
        "request_id": current_request_id.get(),
        **problem.members,
    }
    return _response(problem, body, PROBLEM_MEDIA_TYPE)


def oauth_response(problem: Problem) -> Response:
    """An error as OAuth clients expect it, with our code and the request's id as further members."""
    if problem.code in OAUTH_CODES:
        error = problem.code
    elif problem.status < HTTPStatus.INTERNAL_SERVER_ERROR:
        error = OAUTH_CODE_OF_STATUS.get(problem.status, "invalid_request")
    else:
        error = "server_error" if problem.status != HTTPStatus.SERVICE_UNAVAILABLE else "temporarily_unavailable"
    body = {
        "error": error,
        # RFC 6749 §5.2 takes no quotation marks, backslashes or characters outside of ASCII.
        "error_description": problem.detail.encode("ascii", "ignore").decode().replace('"', "'").replace("\\", "/"),
        "code": problem.code,
        "request_id": current_request_id.get(),
    }
    return _response(problem, body, "application/json")


def _response(problem: Problem, body: dict[str, Any], media_type: str) -> Response:
    # A lone surrogate (a field's name may hold one) has no UTF-8; the escapes of ASCII JSON are plain text.
    content = json.dumps(body, ensure_ascii=True).encode("ascii")
    return Response(content, status_code=problem.status, headers=problem.headers, media_type=media_type)
