"""Run the fake upstream as a separate process: `python -m tests.support.upstream --picture-bytes 1470000`."""

import argparse
import resource
import signal
import sys
import threading
from pathlib import Path

from tests.support import pictures
from tests.support.upstream.named import read_script
from tests.support.upstream.server import API_KEY, FakeUpstream


def main() -> None:
    """Print the base URL, then serve until SIGTERM or SIGINT; SIGUSR1 releases hung requests."""
    arguments = _parser().parse_args()
    _allow_many_connections()
    terminated = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: terminated.set())
    signal.signal(signal.SIGINT, lambda *_: terminated.set())
    size = arguments.picture_bytes
    upstream = FakeUpstream(
        port=arguments.port,
        api_key=arguments.api_key,
        picture=pictures.noise_png(size) if size else None,
        delay=arguments.delay,
        ledger_file=arguments.ledger,
        remember=False,
    )
    for line in read_script(arguments.script) if arguments.script else ():
        upstream.behave_for(line.match, line.behaviour, times=line.times)
    with upstream:
        signal.signal(signal.SIGUSR1, lambda *_: upstream.release())
        sys.stdout.write(f"{upstream.base_url}\n")
        sys.stdout.flush()
        terminated.wait()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="A fake OpenAI Images API.")
    parser.add_argument("--port", type=int, default=0, help="0 picks a free port")
    parser.add_argument("--api-key", default=API_KEY, help="the only accepted key")
    parser.add_argument("--picture-bytes", type=int, help="the size of every picture")
    parser.add_argument("--delay", type=float, default=0.0, help="seconds an answer")
    parser.add_argument("--ledger", type=Path, help="append purchases to this file, as lines of JSON")
    parser.add_argument("--script", type=Path, help='a JSON list of {"match": substring, "behaviour": NAME}')
    return parser


def _allow_many_connections() -> None:
    """Raise the limit of open files to its maximum: every connection uses one."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


if __name__ == "__main__":
    main()
