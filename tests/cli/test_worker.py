"""``pixyproxy worker`` executes the orders that ``pixyproxy serve --no-execute`` accepts."""

import subprocess
from pathlib import Path

from tests.support.process import PROGRAM, environment_of, new_api_key, running_server
from tests.support.server import make_settings


def test_worker_executes_orders_of_a_server(tmp_path: Path) -> None:
    settings = make_settings(tmp_path)
    api_key = new_api_key(settings)
    with running_server(settings, tmp_path, options=("--no-execute",)) as server, server.client(api_key) as client:
        taken = client.post("/generation", json={"prompt": "a fox"}).json()
        path = f"/generation/{taken['guid']}"
        # A process that executes would poll within a second.
        waited = client.get(path, headers={"Prefer": "wait=2"}).json()
        assert (waited["status"], waited["position"]) == ("accepted", 1)
        worker = subprocess.Popen([PROGRAM, "worker"], cwd=tmp_path, env=environment_of(settings))
        try:
            made = client.get(path, headers={"Prefer": "wait=60"}).json()
            assert made["status"] == "stored"
            assert client.get(f"/image/{made['images'][0]['guid']}/content").status_code == 200
            worker.terminate()
            assert worker.wait(timeout=60) == 0
        finally:
            worker.kill()
            worker.wait()
