"""Empty databases for tests, on any server whose user may create them."""

import contextlib
import secrets
from dataclasses import dataclass
from typing import cast
from urllib.parse import unquote, urlsplit

import mysql.connector
from mysql.connector.abstracts import MySQLConnectionAbstract

URL_VARIABLE = "PIXYPROXY_TEST_MYSQL_URL"
"""The URL of a server, and of a user who may create databases, to use instead of a private one."""

PREFIX = "pixytest_"
USER = "pixy"
PASSWORD = "password"


@dataclass(frozen=True)
class MySqlDatabases:
    """Creates and drops databases on the server of `server_url`.

    The URL is mysql://user:password@host:port. Its user must be allowed to create databases whose names start with
    `pixytest_`.
    """

    server_url: str

    def create_database(self) -> str:
        """Create an empty database with a fresh name, and return its URL."""
        name = f"{PREFIX}{secrets.token_hex(8)}"
        self._execute(f"CREATE DATABASE {name} CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci")
        return urlsplit(self.server_url)._replace(path=f"/{name}").geturl()

    def drop_database(self, url: str) -> None:
        """Drop a database that `create_database` made; never any other."""
        name = urlsplit(url).path.removeprefix("/")
        if not name.startswith(PREFIX) or not name.isidentifier():
            message = f"{name!r} is not a test database"
            raise ValueError(message)
        self._execute(f"DROP DATABASE IF EXISTS {name}")

    def _execute(self, statement: str) -> None:
        with contextlib.closing(open_connection(self.server_url)) as connection:
            connection.cursor().execute(statement)


def takes_logins(url: str) -> bool:
    try:
        open_connection(url).close()
    except mysql.connector.Error:
        return False
    return True


def open_connection(url: str) -> MySQLConnectionAbstract:
    parts = urlsplit(url)
    connection = mysql.connector.connect(
        host=parts.hostname,
        port=parts.port or 3306,
        user=unquote(parts.username or ""),
        password=unquote(parts.password or ""),
        connection_timeout=5,
        autocommit=True,
    )
    # The driver returns its other kind of connection only if a pool is requested.
    return cast("MySQLConnectionAbstract", connection)
