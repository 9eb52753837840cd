"""The error formats: problem JSON (RFC 9457), and OAuth errors (RFC 6749 §5.2) at the OAuth endpoints."""

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
"""The nearest OAuth error for a status without its own; PixyProxy's ``code`` is sent beside it."""


@dataclass(frozen=True)
class Problem:
    """The content of an error response: RFC 9457's members, PixyProxy's ``code``, extra members and headers."""

    status: int
    code: str
    detail: str
    members: dict[str, Any]
    headers: dict[str, str]


def problem_response(problem: Problem) -> Response:
    """Return a problem details response with the request id of the log."""
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
    """Return an OAuth error response, with PixyProxy's code and the request id as extra members."""
    if problem.code in OAUTH_CODES:
        error = problem.code
    elif problem.status < HTTPStatus.INTERNAL_SERVER_ERROR:
        error = OAUTH_CODE_OF_STATUS.get(problem.status, "invalid_request")
    else:
        error = "server_error" if problem.status != HTTPStatus.SERVICE_UNAVAILABLE else "temporarily_unavailable"
    body = {
        "error": error,
        # RFC 6749 §5.2 forbids quotation marks, backslashes and non-ASCII characters.
        "error_description": problem.detail.encode("ascii", "ignore").decode().replace('"', "'").replace("\\", "/"),
        "code": problem.code,
        "request_id": current_request_id.get(),
    }
    return _response(problem, body, "application/json")


def _response(problem: Problem, body: dict[str, Any], media_type: str) -> Response:
    # A lone surrogate, possible in a field's name, cannot be encoded in UTF-8; ASCII JSON escapes it.
    content = json.dumps(body, ensure_ascii=True).encode("ascii")
    return Response(content, status_code=problem.status, headers=problem.headers, media_type=media_type)
