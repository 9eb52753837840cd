"""All upstreams of a process: their models, and the validation of their settings."""

import pytest
from pydantic import ValidationError

from pixyproxy.core.exceptions import UpstreamSilentException, UpstreamTimeoutException, UpstreamUnreachableException
from pixyproxy.core.models.upstream import UpstreamSettings, serves
from pixyproxy.service.private.upstream.pool import UpstreamPool
from tests.service.private.upstream.listing import FakeListing

pytestmark = pytest.mark.anyio


async def test_only_enabled_models_are_listed() -> None:
    one = FakeListing("one", models=("flare-2", "text-1", "flare-1"))
    two = FakeListing("two", models=("sketch", "flare-1"))
    silent = FakeListing("silent", error=UpstreamSilentException())
    pool = UpstreamPool([one.pooled(("flare*",)), two.pooled(), silent.pooled(("named", "begun-*"))])
    assert await pool.list_models() == ["flare-1", "flare-2", "named", "sketch"]


async def test_slow_upstream_is_left_out_of_the_list() -> None:
    hanging, other = FakeListing("hanging", hangs=True), FakeListing("other", models=("sketch",))
    assert await UpstreamPool([hanging.pooled(), other.pooled()]).list_models(seconds=0.01) == ["sketch"]
    with pytest.raises(UpstreamTimeoutException):
        await UpstreamPool([hanging.pooled()]).list_models(seconds=0)


async def test_listing_fails_if_every_upstream_fails() -> None:
    with pytest.raises(UpstreamUnreachableException):
        await UpstreamPool([FakeListing(error=UpstreamUnreachableException()).pooled()]).list_models()


async def test_all_upstreams_are_closed_even_if_one_fails() -> None:
    fakes = [FakeListing("a", closing_error=OSError("cut off")), FakeListing("b")]
    pool = UpstreamPool([fake.pooled() for fake in fakes])
    assert pool.name == "a, b"
    with pytest.raises(OSError, match="cut off"):
        await pool.close()
    assert [fake.closed for fake in fakes] == [True, True]


def test_list_of_upstreams_is_read_strictly() -> None:
    given = {"name": "azure-1", "base_url": "https://images.example/v1", "api_key": "sk-1"}
    settings = UpstreamSettings.model_validate(given)
    assert (settings.models, settings.weight, settings.concurrency, settings.requests_per_minute) == (
        None,
        1,
        1000,
        None,
    )
    assert "sk-1" not in repr(settings)
    assert (settings.headers, settings.query, settings.response_format) == ({}, {}, "none")
    azure = {"api_key": None, "headers": {"api-key": "sk-2"}, "query": {"api-version": "sk-3"}}
    assert "sk-" not in repr(UpstreamSettings.model_validate({**given, **azure}))
    assert UpstreamSettings.model_validate({**given, "models": ["flare-*", "a/b@c:1", "*"]}).models is not None


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": ""},
        {"name": "two words"},
        {"name": "line\n"},
        {"base_url": "images.example"},
        {"base_url": "https://images.example/v1?api-version=1"},
        {"base_url": "https://images.example/v1#v2"},
        {"api_key": ""},
        {"api_key": "…"},
        {"headers": {"api key": "k"}},
        {"headers": {"api-key": "line\nbreak"}},
        {"headers": {"api-key": ""}},
        {"headers": {"api-key": 5}},
        {"query": {"a&b": "c"}},
        {"response_format": "base64"},
        {"models": []},
        {"models": ["a*b"]},
        {"models": [""]},
        {"models": ["**"]},
        {"models": ["flare", "flare"]},
        {"weight": 0},
        {"weight": "2"},
        {"weight": 1001},
        {"concurrency": 10_001},
        {"concurrency": True},
        {"requests_per_minute": 0},
        {"colour": "red"},
    ],
)
def test_invalid_upstream_is_rejected(wrong: dict[str, object]) -> None:
    given = {"name": "azure-1", "base_url": "https://images.example/v1", "api_key": "sk-1"}
    with pytest.raises(ValidationError):
        UpstreamSettings.model_validate(given | wrong)


@pytest.mark.parametrize(
    ("models", "model", "served"),
    [
        (None, "any", True),
        (("*",), "any", True),
        (("flare",), "flare", True),
        (("flare",), "flare-2", False),
        (("flare-*",), "flare-2", True),
        (("flare-*",), "flare", False),
        (("sketch", "flare*"), "flare", True),
    ],
)
def test_model_is_served_by_name_or_prefix(models: tuple[str, ...] | None, model: str, *, served: bool) -> None:
    assert serves(models, model) is served
