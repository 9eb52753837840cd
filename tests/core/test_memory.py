"""Memory that is freed comes back to the system, in a process of its own, whose allocator is set once."""

import subprocess
import sys

import pytest

HELD_THEN_FREED = """
import asyncio, re
from pathlib import Path
from pixyproxy.core import memory

def resident():
    return int(re.search(r"VmRSS:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024

async def main():
    memory.KEPT_SECONDS = 0.01
    before = resident()
    held = [b"x" * 1_000_000 for _ in range(40)]
    last = b"x" * 100_000  # on top of the heap, which therefore cannot shrink
    del held
    if resident() - before < 30_000_000:
        raise SystemExit("freed memory is not kept")
    async with asyncio.timeout(30):
        giving = asyncio.ensure_future(memory.give_back_memory_forever())
        while resident() - before > 10_000_000:
            await asyncio.sleep(0.01)
        giving.cancel()

memory.keep_freed_memory()
asyncio.run(main())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator alone can be told so")
def test_freed_memory_is_kept_for_a_moment_and_then_given_back() -> None:
    finished = subprocess.run([sys.executable, "-c", HELD_THEN_FREED], capture_output=True, text=True, check=False)
    assert (finished.returncode, finished.stderr) == (0, "")
