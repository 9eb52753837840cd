"""A machine dies, a clock is wrong, a process freezes: the installation continues, and buys nothing twice."""

import base64
import signal
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import pytest

from pixyproxy.core.fault_points import FaultPoint
from tests.faults.shared_installation import PREVIEW_SECONDS, generation, place_order, statuses
from tests.support.faketime import wrong_clock
from tests.support.faulty_server import Fault, freeze_after, has_frozen
from tests.support.identity import bearer, order_token
from tests.support.installation import Installation, Machine, open_installation
from tests.support.mariadb import MySqlDatabases
from tests.support.pictures import png
from tests.support.process import running_server, wait_until
from tests.support.scale import FULL, scaled
from tests.support.server import TenantClient
from tests.support.upstream import EDITS_PATH, FakeUpstream, Gate
from tests.web.streams import ReceivedEvent, events_in, following

INPUT = png(64, 64, seed=5)
TAKEOVER_SECONDS = 10
"""The time in which another machine executes the waiting orders, once there are slots."""
LEASE_SECONDS = 60
SLACK_SECONDS = 20
FIVE_MINUTES = 300
GO_ON_SECONDS = 10
"""The database ends a transaction that is idle for 5 s; then others continue."""
SCHEDULING = r"\bupstreams\b.*\bFOR UPDATE|^\s*UPDATE\s+upstreams\b"
"""The statements that take the scheduling lock."""


def gate_for(prompt: str, upstream: FakeUpstream) -> Gate:
    """Return a gate that holds the answers to a prompt."""
    gate = Gate()
    upstream.behave_for(prompt, gate)
    return gate


def order_edit(client: httpx2.Client, prompt: str) -> httpx2.Response:
    """Edit a picture, which only ``/v1`` offers; the prompt is the Idempotency-Key."""
    files = {"image": ("input.png", INPUT, "image/png")}
    return client.post("/v1/images/edits", data={"prompt": prompt}, files=files, headers={"Idempotency-Key": prompt})


def edit_or_lose(client: httpx2.Client, prompt: str) -> None:
    """Edit a picture at a machine that is killed meanwhile."""
    with pytest.raises(httpx2.TransportError):
        order_edit(client, prompt)


def order_patiently(client: httpx2.Client, prompt: str, *, seconds: float = 30) -> float:
    """Order until there is a picture, repeating 503 and lost connections under one Idempotency-Key.

    Return the seconds that it took. Raise TimeoutError after ``seconds``.
    """
    started = time.monotonic()

    def is_made() -> bool:
        made = client.post("/image", json={"prompt": prompt}, headers={"Idempotency-Key": prompt})
        assert made.status_code in OK_OR_RETRY, made.text
        return made.status_code == httpx2.codes.CREATED

    wait_until(is_made, seconds=seconds, what=f"the picture of {prompt!r}")
    return time.monotonic() - started


OK_OR_RETRY = {httpx2.codes.CREATED, httpx2.codes.SERVICE_UNAVAILABLE}
"""While a lock is held, a request may get a 503."""


def guids_in(client: httpx2.Client, status: str) -> list[str]:
    """Return the tenant's generations in a status, up to 100."""
    listed = client.get("/generation", params={"status": status, "limit": 100})
    assert listed.status_code == httpx2.codes.OK, listed.text
    return [each["guid"] for each in listed.json()]


def lose(machine: Machine) -> None:
    """Kill all processes of a machine and take its data folder away."""
    machine.kill()
    machine.lose_data()


def test_orders_waiting_at_a_lost_machine_are_executed_by_another(
    tmp_path: Path, mysql_server: MySqlDatabases, record_property: Callable[[str, object], None]
) -> None:
    """The other machine's two orders hold two slots of four; when they finish, it takes the waiting orders."""
    orders, edits = scaled((8, 2), (50, 10))
    with (
        ThreadPoolExecutor(edits) as pool,
        open_installation(tmp_path, mysql_server, {"four": {"concurrency": 4}}, shape="2x2") as installation,
    ):
        upstream, tenant = installation.upstream, installation.new_tenant()
        held, received, called = (gate_for(name, upstream) for name in ("held", "received", "called"))
        clients = installation.ask_all(tenant)
        own = [place_order(clients[number], f"held {number}") for number in (2, 3)]
        received_guid = place_order(clients[0], "received")
        called_guid = place_order(clients[1], "called")
        upstream.wait_for_requests(4)
        waiting = [place_order(clients[number % 2], f"waiting {number}") for number in range(orders - edits)]
        prompts = [f"edit-{number}-{uuid.uuid4()}" for number in range(edits)]
        edited = [pool.submit(edit_or_lose, clients[number % 2], prompt) for number, prompt in enumerate(prompts)]
        survivor = clients[2]
        wait_until(lambda: len(guids_in(survivor, "accepted")) == orders, seconds=15, what="the queueing of all orders")
        waiting = guids_in(survivor, "accepted")

        lost = installation.machines[0]
        # One order's answer is complete in the spool and not stored yet; the other was called and is not answered.
        Fault(FaultPoint.SPOOLED).write(lost.processes[0].folder)
        received.open()
        assert lost.processes[0].wait_until_dead() == -signal.SIGKILL
        lose(lost)
        assert [each.result(timeout=30) for each in edited] == [None] * edits

        since = time.monotonic()
        held.open()
        wait_until(
            lambda: statuses(survivor, [*own, *waiting]) == {"stored"},
            seconds=TAKEOVER_SECONDS,
            what="the execution of the lost machine's waiting orders",
        )
        record_property("figures", f"a lost machine's {orders} orders took {time.monotonic() - since:.1f} s elsewhere")
        again = [order_edit(survivor, prompt) for prompt in prompts]
        assert [answer.status_code for answer in again] == [200] * edits
        sent = [request for request in upstream.requests if request.path == EDITS_PATH]
        assert [[file.content for file in request.files] for request in sent] == [[INPUT]] * edits

        assert generation(survivor, called_guid)["status"] in UNDECIDED
        lost.recover_data()
        lost.restart(0)
        wait_until(
            lambda: generation(survivor, received_guid)["status"] == "stored",
            seconds=30,
            what="the picture in the folder that came back",
        )
        called.open()
        assert {prompt: count for prompt, count in upstream.posts_by_prompt.items() if count != 1} == {}
        assert len(upstream.posts_by_prompt) == orders + 4


UNDECIDED = {"calling", "unknown"}
"""The outcome at the upstream cannot be known; how soon the order is settled depends on the lease."""


@pytest.mark.skipif(not FULL, reason="a lease takes a minute to expire: make faults")
def test_calls_of_a_lost_machine_become_unknown(tmp_path: Path, mysql_server: MySqlDatabases) -> None:
    with open_installation(tmp_path, mysql_server, {"one": {}}, shape="2x1") as installation:
        tenant = installation.new_tenant()
        gate_for("called", installation.upstream)
        guid = place_order(installation.ask(0, tenant), "called")
        installation.upstream.wait_for_requests(1)
        lose(installation.machines[0])
        survivor = installation.ask(1, tenant)
        wait_until(
            lambda: generation(survivor, guid)["status"] == "unknown",
            seconds=LEASE_SECONDS + SLACK_SECONDS,
            what="the end of the lease",
        )
        assert installation.upstream.posts_by_prompt == {"called": 1}


def test_a_process_whose_clock_is_ahead_harms_no_order_and_no_token(
    tmp_path: Path, mysql_server: MySqlDatabases
) -> None:
    ahead_of_time = wrong_clock(FIVE_MINUTES)
    with open_installation(tmp_path, mysql_server, {"one": {}}, shape="2x1", shutdown_seconds=5) as installation:
        upstream, tenant = installation.upstream, installation.new_tenant()
        gate = gate_for("held", upstream)
        with running_server(
            installation.settings, tmp_path, environment={**installation.machines[1].environment, **ahead_of_time}
        ) as ahead:
            clients = [*installation.ask_all(tenant), installation.clients.enter_context(ahead.client(tenant.api_key))]
            guids = [place_order(client, f"held {number}") for number, client in enumerate(clients)]
            upstream.wait_for_requests(len(clients))

            issuers = [installation.client(installation.operator, process=number) for number in (0, 1)]
            issuers.append(installation.clients.enter_context(ahead.client(installation.operator)))
            tokens = [order_token(issuer, tenant.guid, scope="image:read", expires_in=60) for issuer in issuers]
            found = [[client.get("/me", headers=bearer(token)).status_code for client in clients] for token in tokens]
            assert found == [[200] * len(clients)] * len(tokens)

            # The sweep for expired leases runs every few seconds; in the full form leases are renewed meanwhile.
            seen = set()
            until = time.monotonic() + scaled(5, LEASE_SECONDS + SLACK_SECONDS)
            while time.monotonic() < until:
                seen |= statuses(clients[0], guids)
                time.sleep(0.2)
            assert seen == {"calling"}
            gate.open()
            wait_until(lambda: statuses(clients[0], guids) == {"stored"}, what="the pictures")
            later = [place_order(client, f"later {number}") for number, client in enumerate(clients)]
            wait_until(lambda: statuses(clients[0], later) == {"stored"}, what="the later pictures")
        assert set(upstream.posts_by_prompt.values()) == {1}


def test_others_continue_when_a_process_freezes_with_the_scheduling_lock(
    tmp_path: Path, mysql_server: MySqlDatabases, record_property: Callable[[str, object], None]
) -> None:
    with (
        ThreadPoolExecutor(1) as pool,
        open_installation(tmp_path, mysql_server, {"one": {}}, shape="2x1") as installation,
    ):
        tenant, (frozen, _) = installation.new_tenant(), installation.processes
        one, other = installation.ask_all(tenant)
        freeze_after(SCHEDULING, frozen.folder)
        asked = pool.submit(order_patiently, one, "frozen", seconds=60)
        wait_until(lambda: has_frozen(frozen.folder), seconds=10, what="a statement that takes the scheduling lock")
        seconds = order_patiently(other, "others")
        frozen.thaw()
        asked.result(timeout=90)
        record_property("figures", f"others continued {seconds:.1f} s after a process froze with the scheduling lock")
        assert seconds < GO_ON_SECONDS
        assert installation.upstream.posts_by_prompt == {"frozen": 1, "others": 1}


def test_a_worker_executes_orders_of_servers_that_execute_nothing(tmp_path: Path, mysql_server: MySqlDatabases) -> None:
    with open_installation(tmp_path, mysql_server, {"one": {}}, shape="2x1", serve=("--no-execute",)) as installation:
        upstream, tenant = installation.upstream, installation.new_tenant()
        first = place_order(installation.ask(0, tenant), "first")
        assert generation(tenant.http, first)["status"] == "accepted"
        assert upstream.requests == []
        installation.machines[1].add("worker")
        wait_until(lambda: generation(tenant.http, first)["status"] == "stored", seconds=20, what="the worker's work")

        made = installation.ask(0, tenant).post("/image", json={"prompt": "second"})
        assert made.status_code == 201, made.text
        assert_previews_come(installation, tenant)
        assert_stream_comes(installation, tenant)
        assert set(upstream.posts_by_prompt.values()) == {1}


def assert_previews_come(installation: Installation, tenant: TenantClient) -> None:
    """Assert that an order's events bring previews while the upstream still works on it."""
    gate = gate_for("followed", installation.upstream)
    guid = place_order(installation.ask(0, tenant), "followed", partial_images=1)
    with following(installation.ask(1, tenant), guid) as events:
        early, last = follow(events, gate, preview="partial")
    assert early
    assert last.name == "stored"


def assert_stream_comes(installation: Installation, tenant: TenantClient) -> None:
    """Assert that an OpenAI stream brings previews too, and the stored picture."""
    gate = gate_for("streamed", installation.upstream)
    body = {"prompt": "streamed", "stream": True, "partial_images": 1}
    with installation.ask(0, tenant).stream("POST", "/v1/images/generations", json=body) as answer:
        early, last = follow(events_in(answer.iter_lines()), gate, preview="image_generation.partial_image")
    assert early
    assert last.name == "image_generation.completed"
    content = installation.ask(1, tenant).get(f"/image/{last.data['guid']}/content").content
    assert content == base64.b64decode(last.data["b64_json"])


def follow(events: Iterator[ReceivedEvent], gate: Gate, *, preview: str) -> tuple[bool, ReceivedEvent]:
    """Open the gate at the first preview, or after some seconds without one.

    Return whether the preview came before that, and the last event.
    """
    opening = threading.Timer(PREVIEW_SECONDS, gate.open)
    opening.start()
    early = False
    for event in events:
        if event.name == preview:
            early = not gate.is_open
            gate.open()
        last = event
    opening.cancel()
    return early, last
