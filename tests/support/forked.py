"""Processes forked from one with all modules loaded, because loading takes most of a short process's time."""

import multiprocessing
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from multiprocessing.context import ForkServerContext

PRELOADED = [
    "tests.support.commands",
    "tests.support.faulty_server",
    "pixyproxy.client",
    "pixyproxy.service.doctor",
    "pixyproxy.service.private.upstream.openai.images",
    "pixyproxy.service.private.upstream.offline.generator",
    "pixyproxy.web.server.uvicorn_server",
]


def forking() -> "ForkServerContext":
    """Return the only fork server of a test process; its first use decides which modules are loaded."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    return context
