"""The size of endurance tests: short in ``make test``, full in ``make faults``."""

import os
from typing import TypeVar

Size = TypeVar("Size")
FULL = os.environ.get("FULL") == "1"


def scaled(short: Size, full: Size) -> Size:
    """Return ``full`` in ``make faults``, else ``short``."""
    return full if FULL else short
