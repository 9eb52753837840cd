"""A background loop fails: the process stops, logs why, and the next one finishes its work."""

from pathlib import Path

import httpx2
import pytest

from pixyproxy.core.fault_points import FaultPoint
from tests.support.faulty_server import Act, Fault, clear_plan, faulty_server
from tests.support.process import environment_of, new_api_key, wait_until
from tests.support.server import make_settings


def test_a_failed_background_loop_stops_the_process_and_is_logged(tmp_path: Path) -> None:
    settings = make_settings(tmp_path)
    api_key = new_api_key(settings)
    with faulty_server(tmp_path, environment_of(settings)) as server:
        Fault(FaultPoint.SPOOLED).write(tmp_path)
        with server.client(api_key) as client, pytest.raises(httpx2.HTTPError):
            client.post("/image", json={"prompt": "a fox"})
        server.wait_until_dead()
        # Recovery finds the work of that process, and its loop fails there with an unforeseen error.
        Fault(FaultPoint.RECOVERING, Act.END_LOOP).write(tmp_path)
        server.start()
        assert server.wait_until_dead() == 1
        log = server.logs[-1].read_text()
        assert "a background loop failed: stopping this process" in log
        assert "LoopEndError" in log
        clear_plan(tmp_path)
        server.start()
        server.wait_until_listening()
        with server.client(api_key) as client:
            wait_until(lambda: len(client.get("/image").json()) == 1, what="the recovery")
