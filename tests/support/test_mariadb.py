"""The private MariaDB can be killed, frozen and restarted, and never outlives its tests."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import mysql.connector
import pytest

from tests.support import mariadb
from tests.support.mariadb import MariaDbServer, MySqlDatabases, mysql_databases
from tests.support.process import wait_until

_ROOT = Path(__file__).parents[2]


@contextlib.contextmanager
def _cursor(url: str, *, seconds: int = 20) -> Iterator[Any]:
    parts = urlsplit(url)
    with contextlib.closing(
        mysql.connector.connect(
            host=parts.hostname,
            port=parts.port,
            user=parts.username,
            password=parts.password or "",
            database=parts.path.removeprefix("/"),
            connection_timeout=seconds,
            autocommit=True,
        )
    ) as connection:
        yield connection.cursor()


@pytest.fixture(scope="module")
def server() -> Iterator[MariaDbServer]:
    with MariaDbServer() as started:
        yield started


def test_databases_are_fresh_empty_and_unicode(server: MariaDbServer) -> None:
    url, other = server.create_database(), server.create_database()

    assert url != other
    with _cursor(url) as cursor:
        cursor.execute("SELECT @@character_set_database, @@collation_database")
        assert cursor.fetchone() == ("utf8mb4", "utf8mb4_unicode_ci")
        cursor.execute("SHOW TABLES")
        assert cursor.fetchall() == []
    server.drop_database(url)
    with pytest.raises(mysql.connector.Error, match="Unknown database"), _cursor(url):
        pass


def test_only_test_databases_are_dropped(server: MariaDbServer) -> None:
    with pytest.raises(ValueError, match="not a test database"):
        server.drop_database(f"{server.admin_url}/mysql")


def test_committed_row_survives_kill_and_stop(server: MariaDbServer) -> None:
    url = server.create_database()
    with _cursor(url) as cursor:
        cursor.execute("CREATE TABLE t (a INT) ENGINE=InnoDB")
        cursor.execute("INSERT INTO t VALUES (42)")
        server.kill()

    for end in (server.kill, server.stop):
        assert not server.running
        server.start()
        with _cursor(url) as cursor:
            cursor.execute("SELECT a FROM t")
            assert cursor.fetchall() == [(42,)]
        end()

    server.start()


def test_frozen_server_responds_once_thawed(server: MariaDbServer) -> None:
    server.freeze()
    with pytest.raises(mysql.connector.Error), _cursor(server.admin_url, seconds=1):
        pass
    server.thaw()

    with _cursor(server.admin_url) as cursor:
        cursor.execute("SELECT 1")
        assert cursor.fetchone() == (1,)


def test_named_server_is_used(server: MariaDbServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(mariadb.URL_VARIABLE, server.admin_url)

    with mysql_databases() as databases:
        assert databases == MySqlDatabases(server.admin_url)
        databases.drop_database(databases.create_database())


def test_server_and_data_are_removed_with_the_process_that_started_it(
    tmp_path: Path,
) -> None:
    script = (
        "import os, signal\n"
        "from tests.support.mariadb import MariaDbServer\n"
        "server = MariaDbServer()\n"
        "server.start()\n"
        "print(server.pid, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    finished = subprocess.run(
        [sys.executable, "-c", script],
        cwd=_ROOT,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        check=False,
        capture_output=True,
        text=True,
    )

    assert finished.returncode == -signal.SIGKILL
    wait_until(lambda: not _exists(int(finished.stdout)) and not any(tmp_path.iterdir()), seconds=20)


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
