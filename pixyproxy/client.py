"""A client of a running PixyProxy, for ``pixyproxy generate``."""

import sys
import uuid
from pathlib import Path
from typing import Any

import httpx2
from rich.console import Console

TIMEOUT = httpx2.Timeout(600, connect=10)


class ClientError(Exception):
    """The picture could not be obtained; the message says why and what to do."""


def generate_picture(
    url: str, api_key: str, order: dict[str, str], *, idempotency_key: str | None, output: Path | None
) -> dict[str, Any]:
    """Generate a picture and return its ImageDetail; write the picture to ``output`` if given.

    The order always carries an Idempotency-Key, a new one unless one is given, so that a retry cannot buy twice.
    Raises ``ClientError``.
    """
    if not api_key.isascii():
        message = "Invalid characters in the API key. Copy the key again."
        raise ClientError(message)
    key = idempotency_key or str(uuid.uuid4())
    try:
        client = httpx2.Client(base_url=url, headers={"Authorization": f"Bearer {api_key}"}, timeout=TIMEOUT)
    except httpx2.InvalidURL as error:
        message = f"Invalid URL: {url}. Use one like http://127.0.0.1:8000."
        raise ClientError(message) from error
    with client:
        image = _order(client, order, key)
        if output is not None:
            _download(client, image, output)
    return image


def _order(client: httpx2.Client, order: dict[str, str], key: str) -> dict[str, Any]:
    try:
        with Console(file=sys.stderr).status("Drawing …"):
            response = client.post("/image", json=order, headers={"Idempotency-Key": key})
    except (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.UnsupportedProtocol) as error:
        message = (
            f"Cannot connect to {str(client.base_url).rstrip('/')} ({type(error).__name__}). Is the server running?"
        )
        raise ClientError(message) from error
    except httpx2.HTTPError as error:
        message = (
            f"The connection was lost ({type(error).__name__}). The picture may have been generated: "
            f"repeat the command with --idempotency-key {key} to get it without buying another."
        )
        raise ClientError(message) from error
    return _checked(response)


def _download(client: httpx2.Client, image: dict[str, Any], output: Path) -> None:
    try:
        response = client.get(f"/image/{image['guid']}/content")
        response.raise_for_status()
        output.write_bytes(response.content)
    except (httpx2.HTTPError, OSError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        message = f"The picture is at {image['content_url']}, but {output} could not be written: {reason}."
        raise ClientError(message) from error


def _checked(response: httpx2.Response) -> dict[str, Any]:
    """Return the image in a successful response. Raises ``ClientError`` with the details of the problem."""
    try:
        body: dict[str, Any] = response.json()
        if response.is_success:
            return body
        message = f"{body['detail']} ({body['code']}, request {body['request_id']})"
        for error in body.get("errors", []):
            message += f"\n  {'.'.join(map(str, error['loc']))}: {error['msg']}"
    except (ValueError, KeyError, TypeError):
        message = f"Unexpected response from the server: status {response.status_code}. Check the URL."
    raise ClientError(message)
