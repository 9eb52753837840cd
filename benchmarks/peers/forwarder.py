"""The least that a proxy of FastAPI and the OpenAI SDK does: it keeps nothing, checks nothing and counts nothing.

What it takes is a bound for everything that is built on the two. ``python -m benchmarks.peers.forwarder --port N``.
"""

import argparse
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import openai
import uvicorn
from fastapi import FastAPI, Request, Response

from benchmarks.processes import HOST


@asynccontextmanager
async def _connected(app: FastAPI) -> AsyncIterator[None]:
    """With one client for all requests; the key and the URL of the upstream are in the SDK's own variables."""
    async with openai.AsyncOpenAI(max_retries=0) as client:
        app.state.client = client
        yield


async def forward(request: Request, order: dict[str, Any]) -> Response:
    """The upstream's answer, byte for byte."""
    images = request.app.state.client.images.with_streaming_response
    async with images.generate(prompt=order["prompt"], model=order["model"]) as answer:
        return Response(await answer.read(), media_type="application/json")


async def healthy() -> None:
    """It serves."""


def main() -> None:
    """Serve until it is stopped."""
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--port", type=int, required=True)
    app = FastAPI(lifespan=_connected)
    app.post("/v1/images/generations")(forward)
    app.get("/healthz")(healthy)
    uvicorn.run(app, host=HOST, port=arguments.parse_args().port, http="h11", access_log=False)


if __name__ == "__main__":
    main()
