"""``GET /generation/events``: one stream of all generations of a tenant."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from tests.support.problems import assert_problem
from tests.support.process import wait_until
from tests.support.server import (
    UNLIMITED,
    RunningServer,
    TenantClient,
    make_settings,
    serving,
    upstream_settings,
)
from tests.support.upstream import HANG, MODERATED, FakeUpstream
from tests.web.builders import make_image
from tests.web.streams import ReceivedEvent, following, following_all


def order(tenant: TenantClient, prompt: str, **options: object) -> str:
    """Order a picture and return its generation."""
    answer = tenant.http.post("/generation", json={"prompt": prompt, **options})
    assert answer.status_code == 202, answer.text
    return str(answer.json()["guid"])


def shown(tenant: TenantClient, guid: str) -> dict[str, Any]:
    """Return the current state of a generation."""
    found: dict[str, Any] = tenant.http.get(f"/generation/{guid}").json()
    return found


@contextmanager
def connected(
    server: RunningServer, tenant: TenantClient, *, last_event_id: str | None = None
) -> Iterator[Iterator[ReceivedEvent]]:
    """Yield the events of all of the tenant's generations, on a separate connection."""
    with server.client(tenant.api_key) as client, following_all(client, last_event_id=last_event_id) as events:
        yield events


def told(events: Iterator[ReceivedEvent], count: int) -> list[tuple[str, str]]:
    """Return the names of the next events, and their generations."""
    return [(each.name, each.data["guid"]) for each in islice(events, count)]


def test_stream_reports_open_generations_and_each_change(
    tenant: TenantClient, server: RunningServer, upstream: FakeUpstream
) -> None:
    over = make_image(tenant)
    upstream.behave(HANG)
    first = order(tenant, "one")
    with connected(server, tenant) as events:
        assert told(events, 1) == [("status", first)]
        second = order(tenant, "two", n=2)
        assert told(events, 1) == [("status", second)]
        upstream.wait_for_requests(3)
        upstream.release()
        ends = {each.data["guid"]: each for each in islice(events, 2)}
    assert {guid: (each.name, each.data) for guid, each in ends.items()} == {
        guid: ("stored", shown(tenant, guid)) for guid in (first, second)
    }
    assert over["guid"] not in str(ends)


def test_stream_reports_immediate_refusal(tenant: TenantClient, server: RunningServer, upstream: FakeUpstream) -> None:
    upstream.behave(HANG)
    open_order = order(tenant, "open")
    with connected(server, tenant) as events:
        assert told(events, 1) == [("status", open_order)]
        upstream.behave(MODERATED)
        refused = order(tenant, "refused")
        # Its status event before the refusal depends on timing.
        end = next(each for each in events if each.name == "failed")
    assert (end.name, end.data["guid"], end.data["error"]["code"]) == ("failed", refused, "prompt_refused")


def test_reconnecting_client_gets_missed_outcomes(
    tenant: TenantClient, server: RunningServer, upstream: FakeUpstream
) -> None:
    upstream.behave(HANG)
    missed, still_open = order(tenant, "missed"), order(tenant, "open")
    upstream.wait_for_requests(2)
    with connected(server, tenant) as events:
        seen = list(islice(events, 2))
    assert [each.data["guid"] for each in seen] == [missed, still_open]
    upstream.release()
    wait_until(lambda: {shown(tenant, guid)["status"] for guid in (missed, still_open)} == {"stored"})
    again = order(tenant, "again")
    with connected(server, tenant, last_event_id=seen[-1].id) as events:
        found = {guid: name for name, guid in told(events, 3)}
    assert found == {missed: "stored", still_open: "stored", again: "status"}
    with connected(server, tenant) as events:
        assert told(events, 1) == [("status", again)]
    upstream.release()


@pytest.mark.parametrize("last_event_id", ["nonsense", "9999999999", "-1", "9" * 5000])
def test_any_last_event_id_is_accepted(
    last_event_id: str, tenant: TenantClient, server: RunningServer, upstream: FakeUpstream
) -> None:
    upstream.behave(HANG)
    guid = order(tenant, "one")
    with connected(server, tenant, last_event_id=last_event_id) as events:
        assert told(events, 1) == [("status", guid)]


def test_stream_excludes_other_tenants(tenant: TenantClient, server: RunningServer, upstream: FakeUpstream) -> None:
    other = server.new_tenant(f"other than {tenant.guid}")
    upstream.behave(HANG)
    with other.http, connected(server, other) as events:
        order(tenant, "theirs")
        own = order(other, "own")
        assert told(events, 1) == [("status", own)]


def test_idle_stream_sends_heartbeats(
    tenant: TenantClient, server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Bypasses the frozen dataclass.
    monkeypatch.setitem(vars(server.services.watcher), "heartbeat_seconds", 0.2)
    with connected(server, tenant) as events:
        assert [each.name for each in islice(events, 2)] == [":", ":"]


def test_streams_of_a_tenant_share_one_limit(tmp_path: Path, upstream: FakeUpstream) -> None:
    upstream.behave(HANG)
    limits = UNLIMITED | {"max_connections": 4, "trusted_proxies": "127.0.0.1"}
    with serving(make_settings(tmp_path, **limits, **upstream_settings(upstream))) as server:
        tenant = server.new_tenant("one")
        with tenant.http:
            guid = order(tenant, "one")
            with server.client(tenant.api_key) as client, following(client, guid) as events:
                assert next(events).name == "status"
                assert_problem(tenant.http.get("/generation/events"), 429, "rate_limited")
            upstream.release()
