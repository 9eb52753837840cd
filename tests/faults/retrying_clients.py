"""Clients that repeat a request by themselves, without an Idempotency-Key."""

import time
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import cast

import httpx2
import openai

from tests.support.faulty_server import NO_AUTHORITIES
from tests.support.upstream import TRUNCATED, Delayed, FakeUpstream

UPSTREAM_SECONDS = 5.0
"""How long the upstream takes."""
CLIENT_SECONDS = 2.5
"""A client's timeout: shorter than the upstream's time, and long enough for its order to be recorded."""
LAST_SECONDS = 60.0
SDK_RETRIES = 6
PAUSE_SECONDS = 0.2
ATTEMPTS_AFTER_ERRORS = 3
"""How often the Vercel AI SDK and LiteLLM's Router send a request that gets errors."""
ATTEMPTS = 30
PICTURE = "a picture"
CONFLICT, TOO_MANY, SERVER_ERROR = 409, 429, 500


class Loss(StrEnum):
    """The way in which the first response to an order is lost."""

    TIMEOUT = "timeout"
    """The client's timeout is too short, and it hangs up."""
    CUT_BELOW = "cut below"
    """The connection to the client breaks in the middle of the response."""
    CUT_ABOVE = "cut above"
    """The connection to the upstream breaks in the middle of its response, which is paid for and lost."""


ENDS = {
    Loss.TIMEOUT: {PICTURE},
    Loss.CUT_BELOW: {PICTURE},
    Loss.CUT_ABOVE: {"upstream_silent", "generation_unknown"},
}
"""The acceptable outcomes for the client: the picture, or one of these error codes."""


@dataclass
class Order:
    """One logical request with a unique prompt. ``ended`` is ``PICTURE`` or the last error's code."""

    loss: Loss
    prompt: str
    ended: str = ""
    attempts: int = 0


def new_orders(count: int, losses: Sequence[Loss], upstream: FakeUpstream) -> list[Order]:
    """Return orders that lose their responses in these ways in turn, and configure the upstream for them."""
    batch = uuid.uuid4()
    upstream.behave_for(f"{Loss.CUT_ABOVE} {batch}", Delayed(seconds=CLIENT_SECONDS / 2, then=TRUNCATED))
    upstream.behave_for(str(batch), Delayed(seconds=UPSTREAM_SECONDS))
    kinds = [losses[number % len(losses)] for number in range(count)]
    return [Order(loss, f"{loss} {batch} {number}") for number, loss in enumerate(kinds)]


def bought(orders: Sequence[Order], upstream: FakeUpstream) -> Counter[str]:
    """Return how often each order was bought, by prompt."""
    prompts = {order.prompt for order in orders}
    return Counter(line.prompt for line in upstream.ledger if line.bought and line.prompt in prompts)


def bought_wrongly(orders: Sequence[Order], upstream: FakeUpstream) -> dict[str, int]:
    """Return the orders that were not bought exactly once, with the number of purchases."""
    counts = bought(orders, upstream)
    return {order.prompt: counts[order.prompt] for order in orders if counts[order.prompt] != 1}


def figures(what: str, orders: Sequence[Order], upstream: FakeUpstream) -> str:
    """Return a line for the report."""
    counts = bought(orders, upstream)
    twice = sum(count > 1 for count in counts.values())
    return f"{what}: bought twice {twice} of {len(orders)}, bought {counts.total()} in total"


def order_by_sdk(url: str, api_key: str, order: Order) -> None:
    """Order with the official SDK, which marks its retries."""
    transport = _CuttingTransport(cuts=order.loss is Loss.CUT_BELOW)
    seconds = LAST_SECONDS if order.loss is Loss.CUT_BELOW else CLIENT_SECONDS
    with openai.OpenAI(
        base_url=f"{url}/v1",
        api_key=api_key,
        timeout=seconds,
        max_retries=SDK_RETRIES,
        http_client=openai.DefaultHttpxClient(transport=transport),
    ) as client:
        try:
            client.images.generate(prompt=order.prompt, size="64x64")
        except openai.APIError as error:
            order.ended = error.code or type(error).__name__
        else:
            order.ended = PICTURE
    order.attempts = transport.sent


def order_insistently(url: str, api_key: str, order: Order, *, path: str) -> None:
    """Order as a client that repeats every lost connection, 409, 429 and 5xx without marking retries.

    Its first attempt times out early. A request that gets errors is sent three times.
    """
    headers = {"Authorization": f"Bearer {api_key}"}
    errors = 0
    with httpx2.Client(base_url=url, headers=headers, verify=NO_AUTHORITIES) as client:
        while order.attempts < ATTEMPTS and errors < ATTEMPTS_AFTER_ERRORS:
            seconds = LAST_SECONDS if order.attempts else CLIENT_SECONDS
            order.attempts += 1
            try:
                answer = client.post(path, json={"prompt": order.prompt}, timeout=seconds)
            except httpx2.TransportError as error:
                order.ended = type(error).__name__
            else:
                order.ended = PICTURE if answer.is_success else _code(answer)
                if not _is_repeated(answer.status_code):
                    return
                errors += 1
            time.sleep(PAUSE_SECONDS)


def _is_repeated(status: int) -> bool:
    return status in {CONFLICT, TOO_MANY} or status >= SERVER_ERROR


def _code(answer: httpx2.Response) -> str:
    try:
        body = answer.json()
    except ValueError:
        return f"{answer.status_code} without JSON"
    return str(body["error"]["code"] if "error" in body else body["code"])


@dataclass
class _CuttingTransport(httpx2.BaseTransport):
    """Counts requests. With ``cuts``, the first successful response is cut in the middle."""

    cuts: bool
    sent: int = 0
    network: httpx2.HTTPTransport = field(default_factory=lambda: httpx2.HTTPTransport(verify=NO_AUTHORITIES))

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send a request."""
        self.sent += 1
        answer = self.network.handle_request(request)
        if self.cuts and answer.is_success:
            self.cuts = False
            answer.stream = _CutStream(cast("httpx2.SyncByteStream", answer.stream))
        return answer

    def close(self) -> None:
        """Close all connections."""
        self.network.close()


@dataclass
class _CutStream(httpx2.SyncByteStream):
    """The first bytes of another stream; then the connection is closed and reported lost."""

    whole: httpx2.SyncByteStream

    def __iter__(self) -> Iterator[bytes]:
        """Yield half of the first piece."""
        piece = next(iter(self.whole))
        yield piece[: len(piece) // 2]
        self.close()
        message = "cut in the middle"
        raise httpx2.ReadError(message)

    def close(self) -> None:
        """Close the connection, whose response is not read to the end."""
        self.whole.close()
