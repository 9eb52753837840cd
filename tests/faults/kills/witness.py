"""Invariants after every kill, checked against the upstream's ledger, the database and the folders."""

import hashlib
import json
import os
import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
from sqlalchemy import text

from tests.faults.kills.orders import Order
from tests.faults.kills.site import PRICE_MICRO_USD, Site
from tests.support.process import wait_until

RECOVERY_SECONDS = 10
"""The time from a listening server to the end of recovery (I6), on a machine that is not delayed."""
OPEN = ("accepted", "calling")


@dataclass
class Findings:
    """The number of kills and every violation. All fields except ``kills`` and ``unknown`` must stay empty."""

    kills: int = 0
    unknown: int = 0
    lost: list[str] = field(default_factory=list)
    bought_twice: list[str] = field(default_factory=list)
    charged_wrongly: list[str] = field(default_factory=list)
    left_behind: list[str] = field(default_factory=list)
    slowest_seconds: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        """Return the counts of a report."""
        return {
            "kills": self.kills,
            "unknown": self.unknown,
            "lost": len(self.lost),
            "bought twice": len(self.bought_twice),
            "charged wrongly": len(self.charged_wrongly),
            "left behind": len(self.left_behind),
            "slowest": self.slowest_seconds,
        }

    def assert_none(self) -> None:
        """Assert that there are no violations."""
        wrong = {
            "lost": self.lost,
            "bought twice": self.bought_twice,
            "charged wrongly": self.charged_wrongly,
            "left behind": self.left_behind,
        }
        assert not any(wrong.values()), wrong


@dataclass(frozen=True)
class Books:
    """The database's state: the generations and image GUIDs of each prompt, and the budget's row."""

    generations: Mapping[str, list[Mapping[str, Any]]]
    images: Mapping[str, list[str]]
    reserved: int
    spent: int

    @property
    def is_settled(self) -> bool:
        """Return whether every generation has finished."""
        return not any(row["status"] in OPEN for rows in self.generations.values() for row in rows)


def read_books(site: Site) -> Books:
    """Return the database's current state, in one snapshot."""
    generations: defaultdict[str, list[Mapping[str, Any]]] = defaultdict(list)
    images: defaultdict[str, list[str]] = defaultdict(list)
    with site.engine.connect().execution_options(pixyproxy_writes=False) as connection, connection.begin():
        columns = "guid, prompt, status, image_count, reserved_micro_usd, cost_micro_usd"
        for row in connection.execute(text(f"SELECT {columns} FROM generations")).mappings():
            generations[row["prompt"]].append(dict(row))
        for row in connection.execute(text("SELECT guid, prompt FROM images")).mappings():
            images[row["prompt"]].append(row["guid"])
        statement = "SELECT SUM(reserved_micro_usd) AS reserved, SUM(spent_micro_usd) AS spent FROM budgets"
        budget = connection.execute(text(statement)).mappings().one()
    return Books(generations, images, int(budget["reserved"] or 0), int(budget["spent"] or 0))


def spooled(site: Site) -> set[str]:
    """Return the generations whose answer is durable in the spool of a dead process: they must be stored."""
    return {path.stem for path in site.spool.glob("*/*.json")}


def examine(site: Site, orders: Sequence[Order], *, safe: set[str], since: float, findings: Findings) -> None:
    """Wait for the recovery from a kill, and record every violation in the orders that were in progress.

    ``safe`` are the generations that were durable at the kill, ``since`` the time when the server listened again.
    """
    _wait_for_recovery(site, since, findings)
    books, bought = read_books(site), _read_ledger(site)
    for order in orders:
        _examine_order(order, books, bought[order.prompt], safe, findings)
    _examine_budget(books, findings)
    with site.server.client(site.api_key) as client:
        for order in orders:
            findings.lost += [
                f"{order.kind}: {guid}" for guid in order.acknowledged if not _is_whole(client, guid, order)
            ]


def files_of(folder: Path) -> set[str]:
    """Return the names of all files below a folder."""
    return {path.name for path in folder.rglob("*") if path.is_file()}


def _wait_for_recovery(site: Site, since: float, findings: Findings) -> None:
    def is_over() -> bool:
        for folder in (".incoming", ".orders"):
            _age(site.settings.images / folder)
        recorded = {guid for guids in read_books(site).images.values() for guid in guids}
        stored = {name.partition(".")[0] for name in files_of(site.settings.images)}
        # Only the lock of the running process may remain.
        return read_books(site).is_settled and stored == recorded and len(files_of(site.spool)) <= 1

    try:
        wait_until(is_over, what="the recovery")
    except TimeoutError:
        findings.left_behind.append(f"{sorted(files_of(site.spool))} {sorted(files_of(site.settings.images))}"[:2000])
    findings.slowest_seconds = max(findings.slowest_seconds, time.monotonic() - since)


def _age(folder: Path) -> None:
    """Age the interrupted files enough for the sweep, which waits an hour."""
    for path in folder.glob("*"):
        with suppress(FileNotFoundError):
            os.utime(path, (0, 0))


def _read_ledger(site: Site) -> Mapping[str, list[Mapping[str, Any]]]:
    """Return the lines of purchases by prompt."""
    found = defaultdict(list)
    for line in site.ledger.read_text().splitlines():
        values = json.loads(line)
        if values["bought"]:
            found[values["prompt"]].append(values)
    return found


def _examine_order(
    order: Order, books: Books, bought: list[Mapping[str, Any]], safe: set[str], findings: Findings
) -> None:
    rows, images = books.generations[order.prompt], books.images[order.prompt]
    kept = [row for row in rows if row["status"] in {"stored", "unknown"}]
    status = Counter(row["status"] for row in rows)
    about = f"{order.kind} ended {order.ended}, {dict(status)}, {len(bought)} bought, {len(images)} images"
    findings.unknown += status["unknown"]
    if len(bought) > 1 or len(kept) > 1:
        findings.bought_twice.append(about)
    if (bought and not kept) or any(row["guid"] in safe and row["status"] != "stored" for row in rows):
        findings.lost.append(about)
    if order.acknowledged and not status["stored"]:
        findings.lost.append(about)
    if status["stored"] and len(images) != sum(line["pictures"] for line in bought):
        findings.lost.append(about)
    if any(row["status"] == "stored" and row["cost_micro_usd"] != len(images) * PRICE_MICRO_USD for row in rows):
        findings.charged_wrongly.append(about)


def _examine_budget(books: Books, findings: Findings) -> None:
    rows = [row for rows in books.generations.values() for row in rows]
    spent = sum(row["cost_micro_usd"] or 0 for row in rows)
    pictures = sum(map(len, books.images.values())) * PRICE_MICRO_USD
    reserved = sum(row["reserved_micro_usd"] for row in rows if row["status"] in {"unknown", *OPEN})
    if not (books.spent == spent == pictures and books.reserved == reserved):
        findings.charged_wrongly.append(
            f"spent {books.spent}, stored {spent}, pictures {pictures}; reserved {books.reserved}, unknown {reserved}"
        )


def _is_whole(client: httpx2.Client, guid: str, order: Order) -> bool:
    answer = client.get(f"/image/{guid}/content")
    return answer.is_success and hashlib.sha256(answer.content).hexdigest() == order.acknowledged[guid]
