"""How many transactions one picture takes: each commit is a sync of the disk, and a lock that others wait for."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, event

from pixyproxy.service.composition import Services
from tests.support.server import RunningServer, make_settings, serving, upstream_settings
from tests.support.upstream import FakeUpstream

OF_A_PICTURE = ("INTO generations", "INTO images", "UPDATE budgets", "UPDATE generations", "FROM api_keys")


@dataclass
class RecordedTransactions:
    """The statements of each committed transaction, in the order of the commits."""

    committed: list[list[str]] = field(default_factory=list)
    _open: dict[Connection, list[str]] = field(default_factory=dict)

    def execute(self, connection: Connection, _cursor: object, statement: str, *_rest: Any) -> None:  # noqa: ANN401
        """Record a statement."""
        self._open.setdefault(connection, []).append(statement)

    def commit(self, connection: Connection) -> None:
        """Record that a transaction is committed."""
        self.committed.append(self._open.pop(connection, []))

    @property
    def of_pictures(self) -> list[list[str]]:
        """The transactions that took part in making a picture; background loops have others."""
        return [each for each in self.committed if any(part in text for text in each for part in OF_A_PICTURE)]


@pytest.fixture
def quiet_server(tmp_path: Path, upstream: FakeUpstream) -> Iterator[RunningServer]:
    """Yield a server that no other test uses."""
    with serving(make_settings(tmp_path, **upstream_settings(upstream))) as server:
        yield server


def test_one_picture_takes_two_write_transactions_and_one_read(quiet_server: RunningServer) -> None:
    tenant = quiet_server.new_tenant("acme")
    recorded = RecordedTransactions()

    async def record(services: Services) -> None:
        engine: Engine = services.database.engine
        event.listen(engine, "before_cursor_execute", recorded.execute)
        event.listen(engine, "commit", recorded.commit)

    quiet_server.call(record)
    with tenant.http as client:
        answer = client.post("/v1/images/generations", json={"prompt": "a fox"})

    assert answer.status_code == 200
    read, claim, settlement = recorded.of_pictures
    assert "FROM api_keys" in " ".join(read)
    assert (claim[0], settlement[0]) == ("BEGIN IMMEDIATE", "BEGIN IMMEDIATE")
    assert "INSERT INTO generations" in " ".join(claim)
    assert "INSERT INTO images" in " ".join(settlement)
