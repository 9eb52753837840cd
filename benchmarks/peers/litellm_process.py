"""LiteLLM as a process: its proxy, and its library as a client of PixyProxy."""

import contextlib
import hashlib
import json
import secrets
import subprocess
from base64 import b64decode
from collections.abc import Iterator
from pathlib import Path

from benchmarks.client import Call, connected, post_json
from benchmarks.generation import ORDER, Proxy
from benchmarks.processes import HOST, REPOSITORY, BenchmarkError, Server, bare_environment, serving
from tests.support.upstream import API_KEY, GENERATIONS_PATH

ENVIRONMENT = REPOSITORY / ".venv-peers"
CLIENT = Path(__file__).parent / "litellm_client.py"
CLIENT_SECONDS = 120.0


def litellm_version() -> str:
    """Return the installed version. Raise ``BenchmarkError`` if LiteLLM is not installed."""
    versions = [path.name.split("-")[1] for path in ENVIRONMENT.glob("lib/*/site-packages/litellm-*.dist-info")]
    if not versions:
        message = f"LiteLLM is not installed in {ENVIRONMENT.name}. Run: make bench-peers"
        raise BenchmarkError(message)
    return versions[0].removesuffix(".dist")


@contextlib.contextmanager
def litellm_proxy(folder: Path, upstream: Server) -> Iterator[tuple[Server, Call]]:
    """Serve one process with the upstream's model; yield it and the call that makes a picture."""
    model = {"model": f"openai/{ORDER['model']}", "api_base": f"http://{HOST}:{upstream.port}/v1", "api_key": API_KEY}
    # JSON is valid YAML.
    config = {"model_list": [{"model_name": ORDER["model"], "litellm_params": model}]}
    # LiteLLM requires a key that is hard to guess.
    key = f"sk-{secrets.token_hex(32)}"
    environment = {**_environment(folder), "LITELLM_MASTER_KEY": key}
    (folder / "config.yaml").write_text(json.dumps(config))
    command = [str(ENVIRONMENT / "bin" / "litellm"), "--config", "config.yaml", "--host", HOST]
    command += ["--num_workers", "1", "--telemetry", "False"]
    with serving(command, folder, environment, health="/health/liveliness") as server:
        yield server, post_json(server.port, GENERATIONS_PATH, ORDER, key=key, status=200)


def same_bytes_with_litellm(folder: Path, proxy: Proxy, *, bare: Call) -> bool:
    """Return whether LiteLLM's library gets the upstream's picture unchanged with PixyProxy as its ``api_base``."""
    finished = subprocess.run(
        [ENVIRONMENT / "bin" / "python", CLIENT, f"http://{HOST}:{proxy.server.port}/v1", ORDER["model"]],
        cwd=folder,
        env={**_environment(folder), "PIXYPROXY_API_KEY": proxy.key},
        capture_output=True,
        check=False,
        timeout=CLIENT_SECONDS,
        text=True,
    )
    if finished.returncode:
        message = f"LiteLLM's client failed: {finished.stderr[-2000:]}"
        raise BenchmarkError(message)
    with connected(bare) as connection:
        picture = b64decode(bare.answer(connection)["data"][0]["b64_json"])
    return finished.stdout.strip() == hashlib.sha256(picture).hexdigest()


def _environment(folder: Path) -> dict[str, str]:
    # With the prices in its package it does not fetch them from another machine at its start.
    return {**bare_environment(folder), "LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR"}
