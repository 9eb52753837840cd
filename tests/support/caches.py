"""Shared caches in front of PixyProxy with their default settings: Varnish and nginx."""

import os
import shutil
import subprocess
from abc import abstractmethod
from pathlib import Path
from urllib.parse import urlsplit

import httpx2

from tests.support.debian import find_or_install
from tests.support.private_server import PrivateServer, log_of

START_SECONDS = 60.0
NGINX_CONFIGURATION = """
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log stderr;
events {{}}
http {{
    access_log off;
    proxy_cache_path {folder}/cache keys_zone=shared:1m;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass {url};
            proxy_cache shared;
            # Only for answers that do not say themselves how long they may be kept.
            proxy_cache_valid any 10m;
            add_header X-Cache $upstream_cache_status always;
        }}
    }}
}}
"""
"""The shortest configuration that caches. Without ``proxy_cache_valid`` nginx stores only responses that declare a
lifetime."""


class CacheError(Exception):
    """The program is missing or does not start. The message says how to fix it."""


class SharedCache(PrivateServer):
    """A cache that forwards requests to one server and stores cacheable responses."""

    error = CacheError
    package: str
    program: str

    def __init__(self, url: str) -> None:
        """Cache the responses of the server at ``url``."""
        super().__init__()
        self.backend_url = url

    @property
    def url(self) -> str:
        """The address it listens on."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start with an empty cache, and wait until it forwards a request."""
        self.close()
        folder = self._make_folder()
        with log_of(folder).open("ab") as log:
            process = subprocess.Popen(
                self._command(find_program(self.package, self.program), folder),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._run(process, folder, answers=self._answers, seconds=START_SECONDS)

    @abstractmethod
    def _command(self, program: str, folder: Path) -> list[str]:
        """Return the command that runs the cache in the foreground."""

    def _answers(self) -> bool:
        try:
            return httpx2.head(f"{self.url}/").status_code < httpx2.codes.INTERNAL_SERVER_ERROR
        except httpx2.TransportError:
            return False


class Varnish(SharedCache):
    """Varnish with its built-in VCL, which stores a 200 for two minutes unless its headers say otherwise."""

    package, program = "varnish", "varnishd"

    def _command(self, program: str, folder: Path) -> list[str]:
        backend = urlsplit(self.backend_url).netloc
        # Without a jail, which needs root and dedicated users.
        jail = ["-j", "none", "-n", str(folder / "varnish"), "-s", "malloc,16m"]
        return [program, "-F", *jail, "-a", f"127.0.0.1:{self.port}", "-b", backend]


class Nginx(SharedCache):
    """nginx as a caching proxy."""

    package = program = "nginx"

    def _command(self, program: str, folder: Path) -> list[str]:
        configuration = folder / "nginx.conf"
        configuration.write_text(NGINX_CONFIGURATION.format(folder=folder, port=self.port, url=self.backend_url))
        return [program, "-p", str(folder), "-c", str(configuration)]


def find_program(package: str, program: str) -> str:
    """Return the path of a program, installing Debian's package if needed and allowed.

    Raise ``CacheError`` with install instructions if it cannot be found or installed.
    """
    path = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin"))
    found = find_or_install(package, lambda: shutil.which(program, path=path))
    if found is None:
        message = f"{program} is not installed: install {package} (Debian, Ubuntu)."
        raise CacheError(message)
    return found
