"""The time of a response about pictures reveals nothing of private ones: Welch's t, for ``make faults`` alone.

``tests/data/repositories/test_image_search_order.py`` proves the same of searches by their structure, at once and every
time.
"""

import random
import secrets
import time
from collections.abc import Callable

import pytest

from pixyproxy.core.models.image import ImageFilter, ImageGuid
from pixyproxy.core.models.tenant import Tenant, Visibility
from pixyproxy.data.database import Repositories
from tests.faults.test_timing import MOST, welch
from tests.support.builders import add_generation, add_image, add_tenant, new_guid, new_image
from tests.support.scale import FULL

TIMINGS = 2_000
"""Of each kind."""
PICTURES = 300
PROMPT_LENGTH = 4_000
WORD = "lighthouse"
ABSENT = "lighthousf"

pytestmark = pytest.mark.skipif(not FULL, reason="takes minutes of an idle machine: make faults")


def difference(one: Callable[[], object], other: Callable[[], object]) -> float:
    """Return Welch's t of the durations of the two, requested in random order."""
    times: tuple[list[float], list[float]] = ([], [])
    order = [0, 1] * TIMINGS
    random.shuffle(order)
    for kind in [0, 1, *order]:
        began = time.perf_counter()
        (one, other)[kind]()
        times[kind].append(time.perf_counter() - began)
    return welch(times[0][1:], times[1][1:])


def add_private(data: Repositories, owner: Tenant, prompt: str) -> ImageGuid:
    """Add a private picture with this prompt."""
    image = new_image(owner.id, add_generation(data, owner.id).id, prompt=prompt, visibility=Visibility.PRIVATE)
    return data.images.record(image).guid


@pytest.mark.parametrize("viewer", ["stranger", "anonymous"])
def test_a_search_takes_as_long_for_words_of_private_prompts_as_for_others(viewer: str, data: Repositories) -> None:
    owner, stranger = add_tenant(data), add_tenant(data)
    for _ in range(PICTURES):
        add_private(data, owner, f"{secrets.token_hex(PROMPT_LENGTH // 2)} {WORD}")
        # As many visible pictures, so that the database walks over all.
        add_image(data, owner, prompt="a short one")
    tenant_id = stranger.id if viewer == "stranger" else None

    def search(word: str) -> Callable[[], object]:
        wanted = ImageFilter(prompt=f"{word} nothing")
        return lambda: data.images.list_visible(wanted, tenant_id=tenant_id, before=None, limit=20)

    assert abs(difference(search(WORD), search(ABSENT))) < MOST


def test_a_private_picture_takes_as_long_as_a_missing_one(data: Repositories) -> None:
    owner = add_tenant(data)
    private = [add_private(data, owner, secrets.token_hex(PROMPT_LENGTH // 2)) for _ in range(PICTURES)]
    absent = [ImageGuid(new_guid()) for _ in range(PICTURES)]

    def look_up(guids: list[ImageGuid]) -> Callable[[], object]:
        return lambda: data.images.get_visible(random.choice(guids), tenant_id=None)

    assert abs(difference(look_up(private), look_up(absent))) < MOST
