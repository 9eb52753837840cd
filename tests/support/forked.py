"""Processes forked off one that has loaded all modules: to load them is what most of a short process takes."""

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
    """The one way to make them in a test process: its first use decides what is loaded."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    return context
