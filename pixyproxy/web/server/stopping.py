"""Detect when the process is asked to stop."""

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT)


@contextmanager
def stop_noticed(stopping: Callable[[], object]) -> Iterator[Callable[[], float]]:
    """Yield a function that returns the seconds since the stop signal; call ``stopping`` when it arrives.

    The HTTP server's own signal handlers wait for open connections before they notify the application; that time is
    part of the shutdown time. Outside of the main thread signals cannot be handled, and the function returns infinity.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: math.inf
        return
    moments: list[float] = []
    former = {number: signal.getsignal(number) for number in SIGNALS}

    def note(number: int, frame: FrameType | None) -> None:
        moments.append(time.monotonic())
        stopping()
        handler = former[signal.Signals(number)]
        if callable(handler):
            handler(number, frame)

    for number in SIGNALS:
        signal.signal(number, note)
    try:
        yield lambda: time.monotonic() - moments[0] if moments else 0.0
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
