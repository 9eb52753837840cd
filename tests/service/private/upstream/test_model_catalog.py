"""The model catalog fetches once for all concurrent callers."""

import asyncio
from dataclasses import dataclass, field

import pytest

from pixyproxy.core.exceptions import ImageGenerationException, UpstreamBusyException, UpstreamTimeoutException
from pixyproxy.core.models.principal import Principal
from pixyproxy.service.private.upstream.model_catalog import FAILURE_KEPT_SECONDS, KEPT_SECONDS, ModelCatalog
from pixyproxy.service.private.upstream.pool import UpstreamPool
from tests.service.private.upstream.listing import FakeListing

pytestmark = pytest.mark.anyio


@dataclass
class _HeldListing(FakeListing):
    """Returns its models once released, and counts its calls."""

    models: tuple[str, ...] = ("one", "two")
    may_tell: asyncio.Event = field(default_factory=asyncio.Event)
    asked: int = 0

    async def list_models(self) -> list[str]:
        self.asked += 1
        await self.may_tell.wait()
        return await super().list_models()


@dataclass
class _FakeClock:
    """A clock that a test advances."""

    now: float = 1000.0

    def time(self) -> float:
        """Return its time."""
        return self.now


async def _settle() -> None:
    """Let every task run until it waits again."""
    for _ in range(4):
        await asyncio.sleep(0)


@pytest.fixture
def upstream() -> _HeldListing:
    return _HeldListing()


@pytest.fixture
def timing() -> _FakeClock:
    return _FakeClock()


@pytest.fixture
def catalog(upstream: _HeldListing, timing: _FakeClock) -> ModelCatalog:
    return ModelCatalog(UpstreamPool([upstream.pooled()]), clock=timing.time)


async def test_concurrent_callers_share_a_fetch_that_survives_cancellation(
    catalog: ModelCatalog, upstream: _HeldListing, principal: Principal
) -> None:
    impatient, *others = [asyncio.create_task(catalog.list_models(principal)) for _ in range(5)]
    await _settle()
    impatient.cancel()
    await _settle()
    assert impatient.cancelled()
    upstream.may_tell.set()
    assert await asyncio.gather(*others) == [["one", "two"]] * 4
    assert upstream.asked == 1


async def test_models_are_fetched_again_after_a_minute(
    catalog: ModelCatalog, upstream: _HeldListing, timing: _FakeClock, principal: Principal
) -> None:
    upstream.may_tell.set()
    for seconds, asked in ((0, 1), (KEPT_SECONDS - 1, 1), (1, 2)):
        timing.now += seconds
        assert await catalog.list_models(principal) == ["one", "two"]
        assert upstream.asked == asked


async def test_failure_is_cached_for_some_seconds(
    catalog: ModelCatalog, upstream: _HeldListing, timing: _FakeClock, principal: Principal
) -> None:
    upstream.error = UpstreamBusyException(retry_after_seconds=7)
    upstream.may_tell.set()
    told: list[ImageGenerationException] = []
    for _ in range(3):
        with pytest.raises(UpstreamBusyException) as caught:
            await catalog.list_models(principal)
        told.append(caught.value)
    assert upstream.asked == 1
    assert {(error.message, error.retry_after_seconds) for error in told} == {(upstream.error.message, 7)}
    # Each is a new exception without the frames of another.
    assert len(set(map(id, told))) == len(told)
    upstream.error = None
    timing.now += FAILURE_KEPT_SECONDS
    assert await catalog.list_models(principal) == ["one", "two"]


async def test_wait_is_limited(
    catalog: ModelCatalog, upstream: _HeldListing, timing: _FakeClock, principal: Principal
) -> None:
    catalog.most_seconds = 0
    with pytest.raises(UpstreamTimeoutException):
        await catalog.list_models(principal)
    upstream.may_tell.set()
    catalog.most_seconds = 10
    timing.now += FAILURE_KEPT_SECONDS
    assert await catalog.list_models(principal) == ["one", "two"]


async def test_hanging_upstream_does_not_hide_other_models(
    upstream: _HeldListing, timing: _FakeClock, principal: Principal, caplog: pytest.LogCaptureFixture
) -> None:
    upstream.name = "hanging"
    pool = UpstreamPool([upstream.pooled(("named", "any-*")), FakeListing("quick", models=("quick",)).pooled()])
    catalog = ModelCatalog(pool, most_seconds=0.01, clock=timing.time)
    assert await catalog.list_models(principal) == ["named", "quick"]
    assert "upstream hanging did not list its models: upstream_timeout" in caplog.text


async def test_only_allowed_models_are_listed(
    catalog: ModelCatalog, upstream: _HeldListing, principal: Principal
) -> None:
    upstream.may_tell.set()
    restricted = principal.model_copy(update={"allowed_models": frozenset({"two", "three"})})
    assert await catalog.list_models(restricted) == ["two"]
