"""Measure beside LiteLLM, print the report, and exit with 1 if a claim does not hold."""

import os
import platform
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.figures import Target, target_table
from benchmarks.generation import PICTURE_BYTES, bare_call, generating
from benchmarks.peers.comparison import CLIENTS, Comparison, compare, comparison_table, comparison_targets
from benchmarks.peers.litellm_process import litellm_version, same_bytes_with_litellm
from benchmarks.processes import Server, fake_upstream


def main() -> int:
    """Run in temporary folders (in TMPDIR, whose disk affects the figures)."""
    began = time.monotonic()
    busy = os.getloadavg()[0]
    version = litellm_version()
    with fake_upstream(picture_bytes=PICTURE_BYTES) as upstream:
        as_client = _as_client(upstream)
        measured = [_compare(upstream, clients) for clients in CLIENTS]
    targets = [*comparison_targets(measured), as_client]
    facts = f"LiteLLM {version}, {os.cpu_count()} cores, load {busy:.1f} before, Python {platform.python_version()}"
    heading = f"Measured in {time.monotonic() - began:.0f} s: {facts}."
    print("\n\n".join((heading, comparison_table(measured), target_table(targets))))
    return 0 if all(target.met for target in targets) else 1


def _compare(upstream: Server, clients: int) -> Comparison:
    # One folder each: the data of one measurement is deleted before the next.
    with tempfile.TemporaryDirectory(prefix="pixyproxy-bench-") as folder:
        return compare(Path(folder), upstream, clients=clients)


def _as_client(upstream: Server) -> Target:
    with (
        tempfile.TemporaryDirectory(prefix="pixyproxy-bench-") as folder,
        generating(Path(folder), upstream) as proxy,
    ):
        same = same_bytes_with_litellm(Path(folder), proxy, bare=bare_call(upstream))
    return Target("pictures that LiteLLM's library got from PixyProxy, byte for byte", int(same), 1, "", at_least=True)


if __name__ == "__main__":
    sys.exit(main())
