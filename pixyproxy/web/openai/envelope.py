"""Errors in OpenAI's format, so that each SDK raises its own exception classes."""

import json
import re
from http import HTTPStatus
from typing import Any

from fastapi.responses import Response

from pixyproxy.core.exceptions import (
    BudgetExceededException,
    BudgetUnpricedException,
    GenerationInFlightException,
    ImagePromptException,
    ImageStorageException,
    InputPictureException,
    InvalidRequestException,
    PromptRefusedException,
    RecordPendingException,
    UpstreamBusyException,
    UpstreamFundsException,
)
from pixyproxy.core.logs import current_request_id
from pixyproxy.web.errors.problem import Problem

PREFIX = "/v1/"
TYPES: dict[int, str] = {
    HTTPStatus.UNAUTHORIZED: "authentication_error",
    HTTPStatus.FORBIDDEN: "permission_error",
    HTTPStatus.NOT_FOUND: "not_found_error",
    HTTPStatus.CONFLICT: "conflict_error",
    HTTPStatus.TOO_MANY_REQUESTS: "rate_limit_error",
}
"""Error types by status; others are ``invalid_request_error``, or from 500 on ``server_error``."""
OUT_OF_MONEY = (BudgetExceededException.code, BudgetUnpricedException.code)
"""OpenAI does not use 402: an exhausted budget is 429 with ``insufficient_quota``."""
UPSTREAM_LIMITS = (UpstreamBusyException.code, UpstreamFundsException.code)
"""An upstream's 429 is also 429 here: OpenAI's clients treat 503 as a failure."""
UPSTREAM_CODES = (PromptRefusedException.code, UpstreamBusyException.code)
"""Errors that take the upstream's code. Others do not: clients would take ``invalid_api_key`` for their own key."""
NOT_ACCEPTABLE = (InvalidRequestException.code, ImagePromptException.code, InputPictureException.code)
"""Errors that are 422 elsewhere. OpenAI uses 400, and 422 for valid requests that cannot be processed."""
SAFE_TO_REPEAT = {HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE}
NOT_TO_BE_REPEATED = {
    *OUT_OF_MONEY,
    UpstreamFundsException.code,
    RecordPendingException.code,
    ImageStorageException.code,
}
"""Exceptions to these: errors that do not resolve by themselves, and requests that may have been paid for."""
PLAIN_WORD = re.compile(r"[A-Za-z0-9_.\[\]-]{1,64}")


def openai_error(problem: Problem) -> dict[str, Any]:
    """Return the error object, with the upstream's code and parameter if it gave them."""
    status = _status(problem)
    kind = TYPES.get(status, "invalid_request_error" if status < HTTPStatus.INTERNAL_SERVER_ERROR else "server_error")
    errors = problem.members.get("errors", ())
    location = str(errors[0]["loc"][-1]) if errors and len(errors[0]["loc"]) > 1 else None
    upstream_code = problem.members.get("upstream_code") if problem.code in UPSTREAM_CODES else None
    return {
        "message": _message(problem, location),
        "type": "insufficient_quota" if problem.code in OUT_OF_MONEY else kind,
        "param": problem.members.get("upstream_param", problem.members.get("field", location)),
        "code": upstream_code or problem.code,
        "request_id": current_request_id.get(),
    }


def may_be_repeated(problem: Problem) -> bool:
    """Return whether the client may retry the unchanged request."""
    if problem.code == GenerationInFlightException.code:
        return True
    return _status(problem) in SAFE_TO_REPEAT and problem.code not in NOT_TO_BE_REPEATED


def openai_response(problem: Problem) -> Response:
    """Return the error response. SDKs obey ``x-should-retry``, so that no retry pays twice."""
    repeat = str(may_be_repeated(problem)).lower()
    headers = {**problem.headers, "x-should-retry": repeat}
    content = json.dumps({"error": openai_error(problem)}).encode("ascii")
    return Response(content, status_code=_status(problem), headers=headers, media_type="application/json")


def _status(problem: Problem) -> int:
    if problem.code in OUT_OF_MONEY or problem.code in UPSTREAM_LIMITS:
        return HTTPStatus.TOO_MANY_REQUESTS
    return HTTPStatus.BAD_REQUEST if problem.code in NOT_ACCEPTABLE else problem.status


def _message(problem: Problem, location: str | None) -> str:
    errors = problem.members.get("errors", ())
    if not errors or location is None or PLAIN_WORD.fullmatch(location) is None:
        return problem.detail
    return f"Invalid '{location}': {errors[0]['msg']}."
