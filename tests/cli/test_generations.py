"""``pixyproxy generation``: list unknown generations, and resolve one or several."""

import asyncio
from datetime import UTC, datetime

import pytest

from pixyproxy.core.exceptions import UpstreamSilentException
from pixyproxy.core.models.generation import GenerationStatus
from pixyproxy.core.models.tenant import NewTenant
from pixyproxy.data.database import Repositories
from pixyproxy.service.composition import open_services
from pixyproxy.service.private.generation.settlement import outcome_of, settle
from tests.cli.conftest import Place
from tests.support.builders import add_generation
from tests.support.server import ACTOR
from tests.web.builders import ABSENT_GUID

MADE = {"first": ("a", 1), "second": ("a", 2), "third": ("b", 3)}
"""Unknown generations: their upstream, and their day in October."""


@pytest.fixture
def guids(place: Place) -> dict[str, str]:
    """Provide the GUIDs of unknown generations by name."""

    async def make() -> dict[str, str]:
        async with open_services(place.settings) as services:
            tenant = await services.tenants.create_tenant(NewTenant(name="t"), actor=ACTOR)

            def add(data: Repositories) -> dict[str, str]:
                made: dict[str, str] = {}
                for name, (upstream, day) in MADE.items():
                    at = datetime(2026, 10, day, 12, tzinfo=UTC)
                    generation = add_generation(data, tenant.id, status=GenerationStatus.CALLING, created_at=at)
                    settle(data, generation, outcome_of(UpstreamSilentException(), asked=True, upstream=upstream))
                    made[name] = generation.guid
                return made

            return await services.database.write(add)

    return asyncio.run(make())


def _listed(place: Place) -> set[str]:
    return {each["guid"] for each in place.load("generation", "list")}


def test_unknown_generations_are_listed_newest_first(place: Place, guids: dict[str, str]) -> None:
    listed = place.load("generation", "list")
    assert [(each["guid"], each["upstream"]) for each in listed] == [
        (guids["third"], "b"),
        (guids["second"], "a"),
        (guids["first"], "a"),
    ]
    assert guids["third"] in place.succeed("generation", "list", "--limit", "1")
    assert place.load("generation", "list", "--status", "failed") == []


def test_several_generations_are_resolved_together(place: Place, guids: dict[str, str]) -> None:
    chosen = ("--upstream", "a", "--since", "2026-10-01T12:00:01")
    assert place.succeed("generation", "resolve", "--not-bought", *chosen) == "Resolved 1 generation as not bought.\n"
    assert _listed(place) == {guids["first"], guids["third"]}
    assert place.succeed("generation", "resolve", "--bought", "--since", "2026-10-01").startswith("Resolved 2 gen")
    assert _listed(place) == set()


@pytest.mark.parametrize("chosen", [["--bought"], [ABSENT_GUID, "--bought", "--upstream", "a"]], ids=["none", "both"])
def test_exactly_one_selection_is_required(place: Place, chosen: list[str]) -> None:
    assert "Pass either the GUID of one generation" in place.fail("generation", "resolve", *chosen)


def test_bought_or_not_bought_is_required(place: Place) -> None:
    assert "--bought" in place.run("generation", "resolve", ABSENT_GUID).stderr


def test_generation_with_a_known_outcome_is_not_resolved(place: Place, guids: dict[str, str]) -> None:
    place.succeed("generation", "resolve", guids["first"], "--bought")
    assert "there is nothing to resolve" in place.fail("generation", "resolve", guids["first"], "--bought")
