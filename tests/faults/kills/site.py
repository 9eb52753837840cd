"""Everything that outlives the server: upstream, database, folders, and a tenant with a budget."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Engine, text

from pixyproxy.core.settings import Settings
from tests.support.databases import opened_engine
from tests.support.faulty_server import FaultyServer, faulty_server
from tests.support.process import environment_of, new_api_key
from tests.support.server import UNLIMITED, make_settings
from tests.support.upstream import API_KEY

MODEL = "gpt-image-2.5-flare"
PRICE_MICRO_USD = 41_003
"""The price of one picture: the amount reserved equals the amount charged."""
BUDGET_MICRO_USD = 10**12
UPSTREAM_SECONDS = 0.05
PLACES = 3
"""Fewer slots than concurrent orders, so that some wait."""
SCRIPT = [
    {"match": "refused", "behaviour": "MODERATED"},
    {"match": "cut", "behaviour": "TRUNCATED"},
]
ROOT = Path(__file__).parents[3]


@dataclass(frozen=True)
class Site:
    """A server and its surroundings. ``ledger`` is the upstream's own record of purchases."""

    folder: Path
    settings: Settings
    server: FaultyServer
    engine: Engine
    api_key: str
    ledger: Path

    @property
    def spool(self) -> Path:
        """Return the spools of all processes."""
        return self.settings.data_dir / "spool"


@contextmanager
def open_site(folder: Path, *, database_url: str | None = None, images: Path | None = None) -> Iterator[Site]:
    """Yield a site with a listening server. The pictures may be elsewhere, as on another file system."""
    ledger = folder / "ledger.jsonl"
    ledger.touch()
    prices = folder / "prices.json"
    prices.write_text(json.dumps({"models": {MODEL: {"per_picture": PRICE_MICRO_USD / 1_000_000}}}))
    with _upstream(folder, ledger) as base_url:
        upstream = {"name": "fake", "base_url": base_url, "api_key": API_KEY}
        settings = make_settings(
            folder,
            database_url=database_url,
            images=images or folder / "images",
            prices=prices,
            default_model=MODEL,
            max_picture_bytes=1_000_000,
            shutdown_seconds=20,
            # The slots of killed calls stay in use at the upstream until the longest duration of a call has passed.
            generations_at_once=PLACES,
            **UNLIMITED,
        )
        api_key = new_api_key(settings)
        environment = environment_of(settings) | {"PIXYPROXY_UPSTREAMS": json.dumps([upstream])}
        url = settings.effective_database_url.get_secret_value()
        with opened_engine(url) as engine, faulty_server(folder, environment) as server:
            with engine.begin() as connection:
                connection.execute(text(f"UPDATE tenants SET monthly_budget_micro_usd = {BUDGET_MICRO_USD}"))
            yield Site(folder, settings, server, engine, api_key, ledger)


@contextmanager
def _upstream(folder: Path, ledger: Path) -> Iterator[str]:
    """Yield the base URL of a fake upstream in a separate process, as the real one is."""
    script = folder / "script.json"
    script.write_text(json.dumps(SCRIPT))
    options = ["--ledger", str(ledger), "--script", str(script), "--delay", str(UPSTREAM_SECONDS)]
    with subprocess.Popen(
        [sys.executable, "-m", "tests.support.upstream", *options],
        cwd=ROOT,
        env=os.environ.copy(),
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.terminate()
            process.wait(timeout=60)
