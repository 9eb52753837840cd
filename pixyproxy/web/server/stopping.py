"""When the process was told to stop."""

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
    """A function that tells how many seconds ago the process was told to stop; ``stopping`` is called at that moment.

    The HTTP server has handlers of its own, which tell nobody, and waits for open connections before the application
    hears of it; what it spent on that is not to be spent again. Outside of the main thread signals are not heard of:
    it was infinitely long ago.
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
