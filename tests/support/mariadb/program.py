"""The server's program, found or installed, and the data folder of one server."""

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.support.debian import find_or_install
from tests.support.mariadb.databases import PASSWORD, PREFIX, URL_VARIABLE, USER
from tests.support.private_server import LOG_TAIL, log_of

_DEBIAN_PACKAGE = "mariadb-server-core"
# Debian's mariadb-install-db needs a program of another package and takes longer. It runs essentially these three
# scripts in the server's bootstrap mode.
_SYSTEM_SCRIPTS = (
    "mysql_system_tables.sql",
    "mysql_performance_tables.sql",
    "mysql_system_tables_data.sql",
)
_OPTIONS = (
    "--bind-address=127.0.0.1",
    # Relative to the data folder: the whole path could exceed a socket's limit of 107 bytes.
    "--socket=mariadb.sock",
    "--skip-name-resolve",
    "--skip-log-bin",
    "--character-set-server=utf8mb4",
    "--collation-server=utf8mb4_unicode_ci",
    "--max-connections=300",
    "--open-files-limit=2048",
)
_STORAGE_OPTIONS = (
    # At 2 a commit is written to the operating system before it is acknowledged, so it survives SIGKILL. At 0 it would
    # not, and commits would be lost in tests.
    "--innodb-flush-log-at-trx-commit=2",
    "--innodb-log-file-size=8M",
    "--innodb-buffer-pool-size=16M",
    "--innodb-temp-data-file-path=ibtmp1:4M:autoextend",
    "--innodb-use-native-aio=0",
    "--aria-log-file-size=8M",
    "--aria-pagecache-buffer-size=8M",
    "--key-buffer-size=1M",
    "--sync-frm=0",
)


class MariaDbError(Exception):
    """MariaDB is missing or does not start. The message says how to fix it."""


@dataclass(frozen=True, kw_only=True)
class MariaDbProgram:
    """The server's binary, and the folder of the scripts that create its system tables."""

    server: Path
    scripts: Path


def ensure_mariadb() -> MariaDbProgram:
    """Return the MariaDB program, installing Debian's package if needed and allowed.

    Raise `MariaDbError` with install instructions if it cannot be found or installed.
    """
    program = find_or_install(_DEBIAN_PACKAGE, _find_mariadb)
    if program is None:
        message = (
            f"No MariaDB server found: install {_DEBIAN_PACKAGE} (Debian, Ubuntu) or"
            f" mariadb, or set {URL_VARIABLE} to the URL of a server, such as"
            " mysql://user:password@127.0.0.1:3306, whose user may create databases."
        )
        raise MariaDbError(message)
    return program


def _find_mariadb() -> MariaDbProgram | None:
    path = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin"))
    for name in ("mariadbd", "mysqld"):
        server = shutil.which(name, path=path)
        for share in _share_folders(server):
            if all((share / script).is_file() for script in _SYSTEM_SCRIPTS):
                return MariaDbProgram(server=Path(str(server)), scripts=share)
    return None


def _share_folders(server: str | None) -> list[Path]:
    """Return the folder of the packaged scripts, given the folder of the server."""
    if server is None:
        return []
    prefix = Path(server).resolve().parent.parent
    return [prefix / "share" / name for name in ("mariadb", "mysql", "")]


def _command(program: MariaDbProgram, folder: Path) -> list[str]:
    """Return the common start of the command lines of the bootstrap and the server."""
    # In a shared folder, servers that are created at the same time remove each other's temporary tables.
    command = [str(program.server), "--no-defaults", f"--datadir={_data_of(folder)}", f"--tmpdir={folder}"]
    if os.geteuid() == 0:
        command.append("--user=root")
    return [*command, *_STORAGE_OPTIONS]


def make_system_tables(program: MariaDbProgram, folder: Path) -> None:
    _data_of(folder).mkdir()
    statements = ["CREATE DATABASE mysql;", "USE mysql;", "SET @auth_root_socket=NULL;"]
    scripts = [(program.scripts / name).read_text(encoding="utf-8") for name in _SYSTEM_SCRIPTS]
    finished = subprocess.run(
        [*_command(program, folder), "--bootstrap"],
        input="\n".join([*statements, *scripts]).encode(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    if finished.returncode:
        log = finished.stdout.decode(errors="replace")[-LOG_TAIL:]
        message = f"MariaDB could not create its system tables:\n{log}"
        raise MariaDbError(message)
    _accounts_of(folder).write_text(
        f"CREATE USER IF NOT EXISTS {USER}@'127.0.0.1' IDENTIFIED BY '{PASSWORD}';\n"
        rf"GRANT ALL ON `{PREFIX[:-1]}\_%`.* TO {USER}@'127.0.0.1';" + "\n"
    )


def launch(program: MariaDbProgram, folder: Path, *, port: int) -> subprocess.Popen[bytes]:
    """Start the server in its own session, so that Ctrl-C does not reach it."""
    options = [f"--port={port}", f"--init-file={_accounts_of(folder)}", *_OPTIONS]
    with log_of(folder).open("ab") as log:
        return subprocess.Popen(
            [*_command(program, folder), *options],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def _data_of(folder: Path) -> Path:
    return folder / "data"


def _accounts_of(folder: Path) -> Path:
    return folder / "accounts.sql"
