"""What a claim inserts."""

from dataclasses import asdict

import pytest

from pixyproxy.core import clock
from pixyproxy.core.models.budget import month_of
from pixyproxy.core.models.generation import GenerationGuid, GenerationStatus, ProcessGuid
from pixyproxy.core.models.order import NewOrder
from pixyproxy.core.models.tenant import Visibility
from pixyproxy.core.models.upstream import UpstreamId
from pixyproxy.data.repositories.queue import Slot
from pixyproxy.service.private.generation.claims import Claim
from pixyproxy.service.private.generation.orders import fingerprint, picture_order
from pixyproxy.service.private.generation.retries import Repetition
from tests.support.builders import MOMENT, new_guid, new_tenant, principal_of

SLOT = Slot(
    upstream_id=UpstreamId(1),
    upstream="a",
    lease_owner=ProcessGuid("p"),
    started_at=1.5,
    place_until=9.5,
    lease_until=MOMENT,
)
ORDER = NewOrder(prompt="a red fox", count=3)
NO_SLOT = dict.fromkeys(asdict(SLOT))


def _claim(**changes: object) -> Claim:
    principal = principal_of(new_tenant(default_visibility=Visibility.PRIVATE))
    values: dict[str, object] = {
        "guid": GenerationGuid(new_guid()),
        "principal": principal,
        "order": ORDER,
        "wanted": picture_order(ORDER, model="m"),
        "fingerprint": fingerprint(ORDER),
        "reserved_micro_usd": 7,
        "idempotency_key": "k",
        "repetition": None,
        "follower": "f",
    }
    return Claim(**(values | changes))  # type: ignore[arg-type]  # each value has its field's type


@pytest.mark.parametrize(("slot", "status"), [(None, GenerationStatus.ACCEPTED), (SLOT, GenerationStatus.CALLING)])
def test_claim_with_a_slot_is_called_and_one_without_waits(slot: Slot | None, status: GenerationStatus) -> None:
    claimed = _claim().new_generation(slot, month=month_of(clock.now()))

    assert claimed.status is status
    assert {name: getattr(claimed, name) for name in NO_SLOT} == (NO_SLOT if slot is None else asdict(slot))


def test_claim_belongs_to_the_principal_and_this_month() -> None:
    claim = _claim()
    claimed = claim.new_generation(None, month=month_of(clock.now()))

    assert (claimed.guid, claimed.idempotency_key) == (claim.guid, "k")
    assert (claimed.tenant_id, claimed.subject) == (claim.principal.tenant_id, claim.principal.subject)
    assert claimed.visibility is Visibility.PRIVATE
    assert len(set(claimed.image_guids)) == 3
    assert (claimed.budget_month, claimed.reserved_micro_usd) == (f"{claimed.created_at:%Y-%m}", 7)
    assert (claimed.content, claimed.follower, claimed.fingerprint) == (None, "f", fingerprint(ORDER))


def test_claim_without_an_idempotency_key_stores_its_content() -> None:
    claim = _claim()
    repetition = Repetition(
        content="c" * 64, follower="f", tenant_id=claim.principal.tenant_id, says_so=False, window_seconds=600
    )

    assert (
        _claim(idempotency_key=None, repetition=repetition).new_generation(None, month=month_of(clock.now())).content
        == "c" * 64
    )
