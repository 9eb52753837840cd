"""What a process notes of claims whose COMMIT was lost."""

import pytest

from pixyproxy.core.models.generation import GenerationGuid
from pixyproxy.service.private.generation.jobs import DoubtfulClaims
from tests.support.builders import new_guid


def test_of_too_many_doubtful_claims_the_oldest_are_forgotten_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    first, *others = (GenerationGuid(new_guid()) for _ in range(4))
    doubtful = DoubtfulClaims(most=3)
    for guid in (first, *others[:2], first):
        doubtful.add(guid)
    assert caplog.records == []
    doubtful.add(others[2])
    assert doubtful.list_all() == others
    assert [(record.levelname, first in record.getMessage()) for record in caplog.records] == [("WARNING", True)]


def test_a_claim_of_which_is_known_is_doubtful_no_more() -> None:
    guid, doubtful = GenerationGuid(new_guid()), DoubtfulClaims()
    doubtful.add(guid)
    for _ in range(2):
        doubtful.discard(guid)
    assert doubtful.list_all() == []
