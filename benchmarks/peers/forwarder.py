"""The minimal proxy of FastAPI and the OpenAI SDK: it stores, checks and counts nothing.

Its cost is a lower bound for everything built on the two. ``python -m benchmarks.peers.forwarder --port N``.
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
    """Open one client for all requests; the SDK's own variables hold the key and the URL of the upstream."""
    async with openai.AsyncOpenAI(max_retries=0) as client:
        app.state.client = client
        yield


async def forward(request: Request, order: dict[str, Any]) -> Response:
    """Return the upstream's response, byte for byte."""
    images = request.app.state.client.images.with_streaming_response
    async with images.generate(prompt=order["prompt"], model=order["model"]) as answer:
        return Response(await answer.read(), media_type="application/json")


async def healthy() -> None:
    """Return 200 while serving."""


def main() -> None:
    """Serve until stopped."""
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--port", type=int, required=True)
    app = FastAPI(lifespan=_connected)
    app.post("/v1/images/generations")(forward)
    app.get("/healthz")(healthy)
    uvicorn.run(app, host=HOST, port=arguments.parse_args().port, http="h11", access_log=False)


if __name__ == "__main__":
    main()
