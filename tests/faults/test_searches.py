"""Expensive searches are bounded, and no other request waits for them."""

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import text

from pixyproxy.data.database import Repositories
from pixyproxy.data.repositories.images import COLUMNS
from tests.support.builders import add_image, add_tenant
from tests.support.problems import assert_problem
from tests.support.server import UNLIMITED, RunningServer, make_settings, serving

ROWS = 50_000
SEARCH_SECONDS = 0.02
"""A limit that this many rows exceed several times."""
AT_ONCE = 32


def fill(data: Repositories) -> None:
    """Create pictures of a public tenant that differ only by their GUIDs."""
    first = add_image(data, add_tenant(data), prompt="abcdefg " * 20)
    columns = ", ".join(name for name in COLUMNS if name != "guid")
    statement = f"""
        WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {ROWS})
        INSERT INTO images (guid, {columns})
        SELECT 'copy ' || n.i, {columns} FROM images, n WHERE images.id = {first.id}
    """
    data.connection.execute(text(statement))


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RunningServer]:
    """Yield a server with many pictures, one connection, and a short time limit for searches."""
    settings = make_settings(tmp_path, **UNLIMITED, database_pool_size=1, search_seconds=SEARCH_SECONDS)
    with serving(settings) as server:
        server.call(lambda services: services.database.write(fill))
        yield server


def test_a_search_that_takes_too_long_gets_an_error_with_advice(server: RunningServer) -> None:
    with server.client() as client:
        for _ in range(3):
            answer = client.get("/image", params={"prompt": "a b c d e f g nowhere"})
            assert "mine" in assert_problem(answer, 422, "search_timeout")["detail"]
        assert len(client.get("/image", params={"limit": 5}).json()) == 5


def test_concurrent_searches_are_bounded_and_other_requests_are_served(server: RunningServer) -> None:
    with server.client() as client, ThreadPoolExecutor(AT_ONCE) as threads:
        query = {"prompt": "a b c d e f g nowhere"}
        searches = [threads.submit(client.get, "/image", params=query) for _ in range(AT_ONCE)]
        assert client.get("/image").status_code == 200
        answers = [search.result() for search in searches]
    counts = Counter((answer.status_code, answer.json()["code"]) for answer in answers)
    assert set(counts) <= {(422, "search_timeout"), (429, "too_many_at_once")}
    assert {answer.headers.get("retry-after") for answer in answers if answer.status_code == 429} <= {"1"}
