"""What every problem JSON of PixyProxy must look like."""

from typing import Any

import httpx2

MEMBERS = {"type", "title", "status", "detail", "code", "request_id"}


def assert_problem(response: httpx2.Response, status: int, code: str) -> dict[str, Any]:
    """The body of an answer that is this very problem, with all of RFC 9457's members and ours."""
    assert (response.status_code, _code_of(response)) == (status, code), response.text[:2000]
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["cache-control"] == "no-store"
    problem: dict[str, Any] = response.json()
    assert problem.keys() >= MEMBERS
    assert problem["type"] == f"urn:pixyproxy:error:{code}"
    assert problem["status"] == status
    assert problem["title"]
    assert problem["detail"]
    assert problem["request_id"] == response.headers["x-request-id"]
    assert "Traceback" not in response.text
    return problem


def without_request_id(response: httpx2.Response) -> tuple[int, dict[str, Any], dict[str, str]]:
    """Status, body and headers of a problem but for what names the one request, to compare two of them."""
    body = {name: value for name, value in response.json().items() if name != "request_id"}
    headers = {
        name: value for name, value in response.headers.items() if name not in {"x-request-id", "date", "ratelimit"}
    }
    # The body's length is that of the request id, whose thread id may be a digit longer.
    headers.pop("content-length")
    return response.status_code, body, headers


def _code_of(response: httpx2.Response) -> object:
    try:
        body = response.json()
    except ValueError:
        return None
    return body.get("code") if isinstance(body, dict) else None
