"""Clients that order pictures in every way, and repeat their requests until they know the outcome."""

import base64
import hashlib
import json
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field

import httpx2

from tests.faults.kills.site import Site
from tests.support.pictures import png

PATIENCE_SECONDS = 60
PAUSE_SECONDS = 0.1
INPUT = png(64, 64, seed=3)
TRY_AGAIN = frozenset(
    {"generation_in_flight", "record_pending", "database_busy", "database_unavailable", "server_busy"}
)
"""The error codes after which a client must retry."""


class OrderError(AssertionError):
    """A response that no kill explains."""


@dataclass
class Order:
    """One logical request, whose prompt and Idempotency-Key are unique.

    ``try_again`` are codes after which the client retries. ``acknowledged`` are the pictures in successful responses,
    by GUID, with their SHA-256. ``ended`` is the status code of the last response, or its error code.
    """

    kind: str
    prompt: str
    key: str = field(default_factory=lambda: str(uuid.uuid4()))
    try_again: frozenset[str] = TRY_AGAIN
    acknowledged: dict[str, str] = field(default_factory=dict)
    ended: str = ""

    def carry_out(self, site: Site) -> None:
        """Send requests until there is a final response. Raise ``OrderError`` for an invalid one."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not self.ended:
            if time.monotonic() > deadline:
                message = f"{self.kind}: no final response in {PATIENCE_SECONDS} s"
                raise OrderError(message)
            try:
                with site.server.client(site.api_key, timeout=20) as client:
                    self.ended = KINDS[self.kind](self, client)
            except (httpx2.HTTPError, json.JSONDecodeError):
                self.ended = ""
            if not self.ended:
                time.sleep(PAUSE_SECONDS)

    @property
    def headers(self) -> dict[str, str]:
        """Return the header that makes all attempts one request."""
        return {"Idempotency-Key": self.key}


def new_orders(*, after_failures: bool) -> list[Order]:
    """Return an order of every kind; with ``after_failures``, clients also retry after an internal error."""
    try_again = TRY_AGAIN | {"internal_error"} if after_failures else TRY_AGAIN
    return [Order(kind, f"{kind} {uuid.uuid4().hex}", try_again=try_again) for kind in KINDS]


def _image(order: Order, client: httpx2.Client) -> str:
    answer = client.post("/image", json={"prompt": order.prompt}, headers=order.headers)
    if answer.status_code == httpx2.codes.CREATED:
        order.acknowledged[answer.json()["guid"]] = answer.json()["sha256"]
        return "201"
    return _error(order, answer, expected=EXPECTED.get(order.kind, {"generation_unknown"}))


def _generation(order: Order, client: httpx2.Client) -> str:
    answer = client.post("/generation", json={"prompt": order.prompt, "n": 3}, headers=order.headers)
    if answer.status_code != httpx2.codes.ACCEPTED:
        return _error(order, answer, expected=set())
    path = answer.headers["location"]
    while True:
        found = client.get(path, headers={"Prefer": "wait=5"})
        if found.status_code != httpx2.codes.OK:
            return _error(order, found, expected=set())
        detail = found.json()
        if detail["status"] == "stored":
            order.acknowledged |= {image["guid"]: image["sha256"] for image in detail["images"]}
            return "stored"
        if detail["status"] in {"failed", "unknown"}:
            return f"generation_{detail['status']}"


def _openai(order: Order, client: httpx2.Client) -> str:
    answer = client.post("/v1/images/generations", json={"prompt": order.prompt, "n": 2}, headers=order.headers)
    return _openai_answer(order, answer)


def _edit(order: Order, client: httpx2.Client) -> str:
    form = {"prompt": order.prompt}
    files = [("image[]", ("a.png", INPUT, "image/png")), ("image[]", ("b.png", INPUT, "image/png"))]
    answer = client.post("/v1/images/edits", data=form, files=files, headers=order.headers)
    return _openai_answer(order, answer)


def _openai_answer(order: Order, answer: httpx2.Response) -> str:
    if answer.status_code != httpx2.codes.OK:
        return _error(order, answer, expected={"generation_unknown"})
    order.acknowledged |= {picture["guid"]: _sha256(picture["b64_json"]) for picture in answer.json()["data"]}
    return "200"


def _stream(order: Order, client: httpx2.Client) -> str:
    body = {"prompt": order.prompt, "stream": True, "partial_images": 2}
    answer = client.post("/v1/images/generations", json=body, headers=order.headers)
    if answer.status_code != httpx2.codes.OK:
        return _error(order, answer, expected={"generation_unknown"})
    for block in answer.text.split("\n\n"):
        lines = dict(line.split(": ", 1) for line in block.split("\n") if ": " in line and not line.startswith(":"))
        if lines.get("event") == "image_generation.completed":
            data = json.loads(lines["data"])
            order.acknowledged[data["guid"]] = _sha256(data["b64_json"])
            return "completed"
        if lines.get("event") == "error":
            return "" if json.loads(lines["data"])["error"]["code"] in order.try_again else "error"
    return ""


def _error(order: Order, answer: httpx2.Response, *, expected: set[str]) -> str:
    """Return the code of a final error; empty if the client must retry. Raise ``OrderError``."""
    body = answer.json()
    code = str(body["error"]["code"] if "error" in body else body["code"])
    if code in order.try_again:
        return ""
    if code not in expected:
        message = f"{answer.request.url.path}: {answer.status_code} {answer.text}"
        raise OrderError(message)
    return code


def _sha256(text: str) -> str:
    return hashlib.sha256(base64.b64decode(text)).hexdigest()


KINDS: dict[str, Callable[[Order, httpx2.Client], str]] = {
    "one": _image,
    "another": _image,
    "several": _generation,
    "openai": _openai,
    "edit": _edit,
    "stream": _stream,
    "refused": _image,
    "cut": _image,
}
EXPECTED = {
    "refused": {"prompt_refused", "generation_unknown"},
    "cut": {"generation_unknown", "upstream_silent", "upstream_answer_invalid"},
}
