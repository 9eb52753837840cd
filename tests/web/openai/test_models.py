"""Model listing with the SDK, and unknown models."""

from collections.abc import Iterator

import openai
import pytest

from pixyproxy.core.models.principal import Scope
from tests.support.identity import make_key
from tests.support.server import UNLIMITED, RunningServer, TenantClient, make_settings, serving
from tests.support.upstream import MODELS, FakeUpstream
from tests.web.openai.sdk import Sdk, connected

pytestmark = pytest.mark.usefixtures("upstream")


@pytest.fixture(scope="module")
def one_model(
    tmp_path_factory: pytest.TempPathFactory, session_upstream: FakeUpstream
) -> Iterator[tuple[RunningServer, TenantClient]]:
    """Yield a server whose upstream serves one model, and a tenant."""
    only = {
        "name": "only",
        "base_url": session_upstream.base_url,
        "api_key": session_upstream.api_key,
        "models": ["gpt-image-2"],
    }
    settings = make_settings(
        tmp_path_factory.mktemp("one-model"), upstreams=[only], default_model="gpt-image-2", **UNLIMITED
    )
    with serving(settings) as server:
        tenant = server.new_tenant("one model")
        with tenant.http:
            yield server, tenant


def test_upstream_models_are_listed(sdk: Sdk) -> None:
    page = sdk.ask(lambda client: client.models.list())
    assert {model.id for model in page.data} == set(MODELS)
    assert {(model.object, model.owned_by) for model in page.data} == {("model", "pixyproxy")}
    assert all(isinstance(model.created, int) for model in page.data)


def test_model_is_found_by_name(sdk: Sdk) -> None:
    assert sdk.ask(lambda client: client.models.retrieve("gpt-image-2")).id == "gpt-image-2"


@pytest.mark.parametrize("name", ["gpt-4o-mini", "a/b", "../image", "%2e%2e", "ü🦊"])
def test_unknown_model_is_not_found(name: str, sdk: Sdk) -> None:
    with pytest.raises(openai.NotFoundError) as raised:
        sdk.ask(lambda client: client.models.retrieve(name))
    assert raised.value.code == "model_not_found"


def test_models_cannot_be_deleted(sdk: Sdk) -> None:
    with pytest.raises(openai.APIStatusError) as raised:
        sdk.ask(lambda client: client.models.delete("gpt-image-2"))
    assert (raised.value.status_code, raised.value.code) == (405, "method_not_allowed")


def test_only_allowed_models_are_listed(owner: TenantClient, server: RunningServer) -> None:
    key = make_key(owner.http, Scope.IMAGE_GENERATE, allowed_models=["gpt-image-2"])
    with connected(server.url, key["api_key"]) as sdk:
        assert [model.id for model in sdk.ask(lambda client: client.models.list())] == ["gpt-image-2"]
        with pytest.raises(openai.NotFoundError):
            sdk.ask(lambda client: client.models.retrieve("gpt-image-1.5"))
        with pytest.raises(openai.PermissionDeniedError) as raised:
            sdk.generate(model="gpt-image-1.5")
    assert raised.value.code == "model_not_allowed"


def test_order_for_unserved_model_is_not_found(
    form: str, one_model: tuple[RunningServer, TenantClient], upstream: FakeUpstream
) -> None:
    server, tenant = one_model
    with connected(server.url, tenant.api_key, form=form) as sdk:
        assert sdk.generate(model="gpt-image-2").data
        with pytest.raises(openai.NotFoundError) as raised:
            sdk.generate(model="gpt-image-1.5")
    assert raised.value.code == "model_not_found"
    assert len(upstream.ledger) == 1
