"""An upstream breaks off, floods or sends no picture: complete pictures alone are kept and charged."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, text

from pixyproxy.core.settings import Settings
from tests.support import upstream as fake
from tests.support.databases import opened_engine
from tests.support.faulty_server import FaultyServer, faulty_server
from tests.support.process import environment_of, new_api_key, wait_until
from tests.support.server import UNLIMITED, RunningServer, make_settings, serving, upstream_settings
from tests.support.upstream import Behaviour, FakeUpstream

PRICE = 41_003
COUNT = 2
SHORT = 2
MOST_GROWTH = 100 * 1024 * 1024
FLOOD_MEGABYTES = 500


@dataclass(frozen=True)
class Case:
    """An upstream's response to an order of two pictures, and the outcome; ``previews`` make it a stream.

    ``patience`` is the server's timeout in seconds. ``keeps_answer``: the answer is retained for the operator.
    """

    name: str
    behaviour: Behaviour
    status: str
    kept: int = 0
    previews: int = 0
    patience: int = 20
    keeps_answer: bool = False

    def __str__(self) -> str:
        """Return the name of the test."""
        return self.name


CASES = [
    Case("429", fake.RATE_LIMITED, "failed"),
    Case("500", fake.SERVER_ERROR, "failed"),
    Case("503", fake.UNAVAILABLE, "failed"),
    Case("closes at once", fake.CUT, "unknown"),
    Case("closes half way", fake.TRUNCATED, "unknown"),
    Case("hangs", fake.HANG, "unknown", patience=SHORT),
    Case("HTML with 200", fake.HTML, "failed"),
    Case("data null", fake.DATA_NULL, "failed"),
    Case("bad base64", fake.BAD_BASE64, "unknown", keeps_answer=True),
    Case("SVG called PNG", fake.SVG_AS_PNG, "unknown", keeps_answer=True),
    Case("HTML called PNG", fake.HTML_AS_PNG, "unknown", keeps_answer=True),
    Case("50,000² pixels", fake.HUGE_PIXELS, "unknown", keeps_answer=True),
    Case("URLs in place of base64", fake.LINKED, "stored", COUNT),
    Case("URLs of another network", fake.Linked(root="http://10.0.0.1"), "unknown", keeps_answer=True),
    Case("base64 of PHP, .NET and MIME", fake.RESPELLED, "stored", COUNT),
    Case("403 for the content", fake.FORBIDDEN_CONTENT, "failed"),
    Case("400 for lack of funds", fake.OUT_OF_CREDIT, "failed"),
    Case("404 of a wrong base URL", fake.NO_SUCH_URL, "failed"),
    *(
        Case(f"stream cut after {events}", fake.StreamCut(events=events), "stored" if kept else "unknown", kept, 2)
        for events, kept in ((0, 0), (1, 0), (2, 0), (3, 1), (4, 2))
    ),
    *(
        Case(f"stream cut in {events + 1}", fake.StreamCut(events=events, within=True), status, kept, 2)
        for events, status, kept in ((0, "unknown", 0), (2, "unknown", 0), (3, "stored", 1))
    ),
    Case("stream with an error", fake.STREAM_ERROR, "failed", previews=2),
    Case("stream without its end", fake.STREAM_INCOMPLETE, "stored", 1, 2),
    Case("stream with a garbage line", fake.STREAM_GARBAGE_LINE, "stored", 2, 2),
    Case("stream that hangs", fake.STREAM_HANG, "unknown", previews=2, patience=SHORT),
    Case("stream of SVG", fake.SVG_AS_PNG, "unknown", previews=2, keeps_answer=True),
    Case("stream of 50,000² pixels", fake.HUGE_PIXELS, "unknown", previews=2, keeps_answer=True),
]


@pytest.fixture(scope="module")
def priced(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, session_upstream: FakeUpstream
) -> Iterator[RunningServer]:
    """Yield a server where every picture costs the same; the parameter is its timeout."""
    settings = priced_settings(tmp_path_factory.mktemp("priced"), session_upstream, patience=request.param)
    with serving(settings) as server:
        yield server


@pytest.fixture(scope="module")
def books(priced: RunningServer) -> Iterator[Engine]:
    """Yield its database."""
    with opened_engine(priced.settings.effective_database_url.get_secret_value()) as engine:
        yield engine


def priced_settings(folder: Path, upstream: FakeUpstream, *, patience: int) -> Settings:
    """Return settings with a price per picture, and this many seconds for the upstream to answer."""
    prices = folder / "prices.json"
    prices.write_text(json.dumps({"models": {"*": {"per_picture": PRICE / 1_000_000}}}))
    return make_settings(
        folder, prices=prices, upstream_timeout_seconds=patience, **UNLIMITED, **upstream_settings(upstream)
    )


@pytest.mark.parametrize(
    ("priced", "case"),
    [(case.patience, case) for case in CASES],
    indirect=["priced"],
    ids=map(str, CASES),
    # Otherwise pytest would take both for the test's own fixtures, and start a server for each case.
    scope="module",
)
def test_orders_are_charged_for_delivered_pictures(
    case: Case, priced: RunningServer, books: Engine, upstream: FakeUpstream
) -> None:
    upstream.behave(case.behaviour)
    others = set(spooled(priced.settings))
    tenant = priced.new_tenant(case.name)
    with tenant.http as http:
        order = {"prompt": case.name, "n": COUNT, "partial_images": case.previews}
        path = http.post("/generation", json=order).raise_for_status().headers["location"]
        ended: dict[str, Any] = {}

        def over() -> bool:
            ended.update(http.get(path, headers={"Prefer": "wait=5"}).raise_for_status().json())
            return ended["status"] not in {"accepted", "calling"}

        wait_until(over)
    assert (ended["status"], len(ended["images"])) == (case.status, case.kept)
    assert upstream.posts_by_prompt[case.name] == 1
    held = COUNT * PRICE if case.status == "unknown" else 0
    assert budget_of(books, tenant.guid) == (held, case.kept * PRICE)
    kept = [kept_answer(priced.settings, ended["guid"])] if case.keeps_answer else []
    wait_until(lambda: sorted(set(spooled(priced.settings)) - others) == kept, what="the cleaning")
    stored = {path.stem for path in priced.settings.images.glob("[!.]*/*")}
    with books.begin() as connection:
        assert stored == set(connection.execute(text("SELECT guid FROM images")).scalars())


def budget_of(books: Engine, tenant: str) -> tuple[int, int]:
    """Return a tenant's reserved and spent amounts in micro-dollars."""
    statement = """
        SELECT b.reserved_micro_usd, b.spent_micro_usd
          FROM budgets b JOIN tenants t ON t.id = b.tenant_id WHERE t.guid = :tenant
    """
    with books.begin() as connection:
        reserved, spent = connection.execute(text(statement), {"tenant": tenant}).one()
    return int(reserved), int(spent)


def kept_answer(settings: Settings, generation: str) -> Path:
    """Return the path of a generation's retained answer."""
    return settings.data_dir / "spool" / "kept" / f"{generation}.answer"


def spooled(settings: Settings) -> list[Path]:
    """Return the files of the spool without the locks of processes."""
    found = (settings.data_dir / "spool").rglob("*")
    return [path for path in found if path.is_file() and path.suffix != ".lock"]


@pytest.mark.parametrize(
    ("behaviour", "previews"),
    [
        (fake.Flood(megabytes=FLOOD_MEGABYTES), 0),
        (fake.Flood(megabytes=FLOOD_MEGABYTES, announced=True), 0),
        (fake.StreamFlood(megabytes=FLOOD_MEGABYTES), 1),
    ],
    ids=["counted", "announced", "streamed"],
)
def test_a_flood_takes_no_memory_and_bounded_disk_space(
    behaviour: Behaviour, previews: int, tmp_path: Path, upstream: FakeUpstream
) -> None:
    settings = make_settings(tmp_path, **upstream_settings(upstream))
    api_key = new_api_key(settings)
    with faulty_server(tmp_path, environment_of(settings)) as server, server.client(api_key, timeout=120) as http:
        # Modules and objects loaded for the first picture do not count as growth.
        http.post("/image", json={"prompt": "before"}).raise_for_status()
        before = most_memory(server)
        upstream.behave_for("a flood", behaviour)
        path = http.post("/generation", json={"prompt": "a flood", "partial_images": previews}).headers["location"]

        def over() -> bool:
            return http.get(path, headers={"Prefer": "wait=30"}).json()["status"] in {"failed", "unknown"}

        wait_until(over, seconds=90, what="the end of the flood")
        assert most_memory(server) - before < MOST_GROWTH
        assert upstream.posts_by_prompt["a flood"] == 1
        kept = kept_answer(settings, path.rpartition("/")[2])
        wait_until(lambda: spooled(settings) == [kept], what="the cleaning")
        assert kept.stat().st_size == 2 * settings.max_picture_bytes
        assert len(list(settings.images.glob("[!.]*/*"))) == 1
        assert http.post("/image", json={"prompt": "after"}).is_success


def most_memory(server: FaultyServer) -> int:
    """Return a server's peak memory in bytes."""
    status = Path(f"/proc/{server.process_id}/status").read_text()
    (line,) = [line for line in status.splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) * 1024
