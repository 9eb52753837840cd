"""A folder and settings for commands to run in."""

import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pixyproxy.core.settings import Settings
from tests.support.commands import run_command
from tests.support.mariadb import MySqlDatabases
from tests.support.server import make_settings


@dataclass(frozen=True)
class Place:
    """A folder and settings that commands run with."""

    folder: Path
    settings: Settings

    def run(self, *arguments: str, typed: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a command and return its result; a traceback fails the test. ``typed`` is its standard input."""
        done = run_command(
            *arguments, settings=self.settings, folder=self.folder, environment=environment, standard_input=typed
        )
        assert "Traceback" not in done.stderr, done.stderr
        return done

    def succeed(self, *arguments: str, typed: str = "", **environment: str) -> str:
        """Return the output of a command that must succeed."""
        done = self.run(*arguments, typed=typed, **environment)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def load(self, *arguments: str, typed: str = "", **environment: str) -> Any:  # noqa: ANN401  (JSON)
        """Return the parsed output of a command with ``--json``."""
        return json.loads(self.succeed(*arguments, "--json", typed=typed, **environment))

    def fail(self, *arguments: str, typed: str = "", **environment: str) -> str:
        """Return the short standard error of a command that must fail."""
        done = self.run(*arguments, typed=typed, **environment)
        assert done.returncode == 1, done.stdout
        assert done.stdout == ""
        return done.stderr


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """Provide a place with the embedded database."""
    return Place(tmp_path, make_settings(tmp_path))


@pytest.fixture(params=["sqlite", "mysql"])
def any_place(request: pytest.FixtureRequest, tmp_path: Path, mysql_server: MySqlDatabases) -> Iterator[Place]:
    """Provide a place with each database."""
    url = mysql_server.create_database() if request.param == "mysql" else None
    yield Place(tmp_path, make_settings(tmp_path, database_url=url))
    if url is not None:
        mysql_server.drop_database(url)
