"""The response to a COMMIT is lost, so that the transaction is in doubt: it still takes effect exactly once."""

from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from tests.faults.commit_thief import CommitThief, commit_thief
from tests.support.mariadb import MySqlDatabases
from tests.support.problems import assert_problem
from tests.support.process import wait_until
from tests.support.server import TenantClient, make_settings, serving, upstream_settings
from tests.support.upstream import FakeUpstream

CLAIM, RECORD = b"INSERT INTO generations", b"INSERT INTO images"
"""Statements that identify a transaction of an order. Others, of recovery or for a key, may come between."""


@pytest.fixture
def thief(
    mysql_server: MySqlDatabases, tmp_path: Path, upstream: FakeUpstream
) -> Iterator[tuple[CommitThief, TenantClient]]:
    """Yield a tenant of a server whose connection to the database loses responses."""
    url = mysql_server.create_database()
    with commit_thief(url) as (thief, way):
        settings = make_settings(tmp_path, database_url=way, **upstream_settings(upstream))
        with serving(settings) as server:
            tenant = server.new_tenant("t")
            with tenant.http:
                # Complete everything that is done once, for the first request with a key.
                tenant.http.post("/image", json={"prompt": "before"}).raise_for_status()
                yield thief, tenant
    mysql_server.drop_database(url)


def order_and_lose(statement: bytes, thief: CommitThief, tenant: TenantClient, **headers: str) -> None:
    """Order a picture, lose the response to the COMMIT of a statement, and wait until all is settled."""
    thief.steal(statement)
    tenant.http.post("/image", json={"prompt": "a fox"}, headers=headers)
    assert thief.stolen.is_set()

    def all_over() -> bool:
        found = tenant.http.get("/generation").json()
        return {each["status"] for each in found} == {"stored"} and len(found) == 2

    wait_until(all_over)


@pytest.mark.parametrize("statement", [CLAIM, RECORD], ids=["claim", "record"])
def test_a_lost_commit_is_settled_and_buys_nothing_twice(
    statement: bytes, thief: tuple[CommitThief, TenantClient], upstream: FakeUpstream
) -> None:
    stealing, tenant = thief
    order_and_lose(statement, stealing, tenant)
    assert upstream.posts_by_prompt["a fox"] == 1
    assert [image["prompt"] for image in tenant.http.get("/image?mine=true").json()] == ["a fox", "before"]


@pytest.mark.parametrize("statement", [CLAIM, RECORD], ids=["claim", "record"])
def test_an_order_whose_commit_was_lost_is_replayed_with_its_key(
    statement: bytes, thief: tuple[CommitThief, TenantClient], upstream: FakeUpstream
) -> None:
    stealing, tenant = thief
    headers = {"Idempotency-Key": "order-4711"}
    order_and_lose(statement, stealing, tenant, **headers)

    def again() -> httpx2.Response:
        return tenant.http.post("/image", json={"prompt": "a fox"}, headers=headers)

    # For a moment longer the error says that the record is pending.
    wait_until(lambda: again().status_code == 201)
    assert again().headers["idempotency-replayed"] == "true"
    assert upstream.posts_by_prompt["a fox"] == 1
    assert [image["prompt"] for image in tenant.http.get("/image?mine=true").json()] == ["a fox", "before"]


def test_a_claim_in_doubt_is_settled_by_itself_when_the_database_is_back(
    thief: tuple[CommitThief, TenantClient], upstream: FakeUpstream
) -> None:
    stealing, tenant = thief
    headers = {"Idempotency-Key": "order-4711"}
    stealing.steal(CLAIM, blocks=True)
    first = tenant.http.post("/image", json={"prompt": "a fox"}, headers=headers)
    assert_problem(first, 503, "database_unavailable")
    stealing.unblock()

    def failed() -> bool:
        claim, _ = tenant.http.get("/generation").raise_for_status().json()
        return bool(claim["status"] == "failed")

    wait_until(failed)
    assert upstream.posts_by_prompt["a fox"] == 0
    # The error said that nothing was changed: the same key buys.
    assert tenant.http.post("/image", json={"prompt": "a fox"}, headers=headers).status_code == 201
    assert upstream.posts_by_prompt["a fox"] == 1
