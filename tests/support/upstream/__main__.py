"""Serve for benchmarks: `python -m tests.support.upstream --picture-bytes 1470000`."""

import argparse
import signal
import sys
import threading
from types import FrameType

from tests.support import pictures
from tests.support.upstream.server import FakeUpstream


def main() -> None:
    """Serve until SIGTERM or SIGINT, for benchmarks."""
    parser = argparse.ArgumentParser(description="A fake OpenAI Images API.")
    parser.add_argument("--port", type=int, default=0, help="0 picks a free one")
    parser.add_argument("--picture-bytes", type=int, help="the size of every picture")
    parser.add_argument("--delay", type=float, default=0.0, help="seconds an answer")
    arguments = parser.parse_args()
    size = arguments.picture_bytes
    picture = pictures.noise_png(size) if size else None
    terminated = threading.Event()

    def terminate(_number: int, _frame: FrameType | None) -> None:
        terminated.set()

    signal.signal(signal.SIGTERM, terminate)
    signal.signal(signal.SIGINT, terminate)
    with FakeUpstream(port=arguments.port, picture=picture, delay=arguments.delay) as upstream:
        sys.stdout.write(f"{upstream.base_url}\n")
        sys.stdout.flush()
        terminated.wait()


if __name__ == "__main__":
    main()
