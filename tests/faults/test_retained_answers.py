"""A retained answer survives kill -9 until an operator has resolved it."""

import base64
from pathlib import Path

from pixyproxy.core.fault_points import FaultPoint
from tests.cli.conftest import Place
from tests.faults.test_upstream_faults import kept_answer, spooled
from tests.support import pictures
from tests.support.faulty_server import Fault, clear_plan, faulty_server
from tests.support.process import environment_of, new_api_key, wait_until
from tests.support.server import make_settings, upstream_settings
from tests.support.upstream import SVG_AS_PNG, FakeUpstream


def test_a_retained_answer_survives_a_kill_and_is_removed_when_resolved(tmp_path: Path, upstream: FakeUpstream) -> None:
    settings = make_settings(tmp_path, **upstream_settings(upstream))
    place = Place(tmp_path, settings)
    api_key = new_api_key(settings)
    upstream.behave(SVG_AS_PNG)
    with faulty_server(tmp_path, environment_of(settings)) as server:
        Fault(FaultPoint.REFUSED).write(tmp_path)
        with server.client(api_key) as http:
            path = http.post("/generation", json={"prompt": "a fox"}).raise_for_status().headers["location"]
        server.wait_until_dead()
        kept = kept_answer(settings, path.rpartition("/")[2])
        before = kept.read_bytes()
        assert base64.b64encode(pictures.svg()) in before
        clear_plan(tmp_path)
        server.start()
        server.wait_until_listening()
        with server.client(api_key) as http:
            wait_until(lambda: http.get(path).json()["status"] == "unknown", what="the recovery")
        # Recovery removes everything but retained answers.
        wait_until(lambda: spooled(settings) == [kept], what="the cleaning")
    assert before == kept.read_bytes()
    told = place.run("doctor").stdout
    assert f"1 paid for without a picture that can be stored: {kept.stem} ({len(before)} bytes)" in told
    resolved = place.succeed("generation", "resolve", kept.stem, "--not-bought")
    assert resolved == "Resolved 1 generation as not bought.\n"
    assert spooled(settings) == []
    assert "ok    retained answers" in place.run("doctor").stdout
    assert upstream.posts_by_prompt["a fox"] == 1
