"""The command line as its users see it: a separate process, its output and its exit code."""

import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from subprocess import CompletedProcess

from pixyproxy.cli import app
from pixyproxy.core.settings import Settings
from tests.support.forked import forking
from tests.support.process import environment_of

COMMAND_SECONDS = 60
INPUT, OUTPUT, ERROR = "input", "output", "error"
"""Files that replace the standard streams, whose descriptors are 0, 1 and 2."""


def run_command(
    *arguments: str,
    settings: Settings,
    folder: Path,
    environment: dict[str, str] | None = None,
    standard_input: str = "",
    seconds: float = COMMAND_SECONDS,
) -> CompletedProcess[str]:
    """Run a command in ``folder`` until it exits and return its result; kill it after ``seconds``."""
    with tempfile.TemporaryDirectory() as place:
        streams = [Path(place, name) for name in (INPUT, OUTPUT, ERROR)]
        streams[0].write_text(standard_input)
        variables = environment_of(settings) | (environment or {})
        process = forking().Process(target=_run, args=(arguments, folder, variables, streams), daemon=True)
        process.start()
        process.join(seconds)
        if process.exitcode is None:
            process.kill()
            process.join()
        output, error = (path.read_text() for path in streams[1:])
        return CompletedProcess(arguments, process.exitcode or 0, output, error)


def _run(arguments: Sequence[str], folder: Path, variables: Mapping[str, str], streams: Sequence[Path]) -> None:
    """Run the command in the forked process."""
    for descriptor, path in enumerate(streams):
        opened = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        os.dup2(opened, descriptor)
        os.close(opened)
    # The start of another process has closed the previous one.
    sys.stdin = os.fdopen(0, closefd=False)
    os.environ.clear()
    os.environ.update(variables)
    os.chdir(folder)
    app(arguments, prog_name="pixyproxy")
