"""One server process that tests may kill, freeze and restart."""

import contextlib
import os
from collections.abc import Iterator

from tests.support.mariadb.databases import PASSWORD, URL_VARIABLE, USER, MySqlDatabases, takes_logins
from tests.support.mariadb.program import MariaDbError, ensure_mariadb, launch, make_system_tables
from tests.support.private_server import PrivateServer

_START_SECONDS = 30.0


@contextlib.contextmanager
def mysql_databases() -> Iterator[MySqlDatabases]:
    """Yield databases on the server of PIXYPROXY_TEST_MYSQL_URL, or else on a private one."""
    url = os.environ.get(URL_VARIABLE)
    if url:
        yield MySqlDatabases(url)
    else:
        with MariaDbServer() as server:
            yield server.databases


class MariaDbServer(PrivateServer):
    """One server process over one temporary data folder. Committed rows survive a kill."""

    error = MariaDbError

    @property
    def databases(self) -> MySqlDatabases:
        """The databases of the ordinary user, who has all privileges within them."""
        return MySqlDatabases(f"mysql://{USER}:{PASSWORD}@127.0.0.1:{self.port}")

    @property
    def admin_url(self) -> str:
        """The URL of the root user, for SET GLOBAL, KILL and the like."""
        return f"mysql://root@127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start on the same port and data as before, and wait until it accepts logins.

        Raise `MariaDbError` with the end of the server's log if it does not start.
        """
        if self.running:
            message = "the server is already running"
            raise MariaDbError(message)
        self.kill()  # Reaps a process that exited by itself, and its watcher.
        program = ensure_mariadb()
        folder = self._folder
        if folder is None:
            folder = self._make_folder()
            make_system_tables(program, folder)
        process = launch(program, folder, port=self.port)
        self._run(process, folder, answers=lambda: takes_logins(self.databases.server_url), seconds=_START_SECONDS)

    def create_database(self) -> str:
        """Create an empty database with a fresh name, and return its URL."""
        return self.databases.create_database()

    def drop_database(self, url: str) -> None:
        """Drop a database that `create_database` made."""
        self.databases.drop_database(url)
