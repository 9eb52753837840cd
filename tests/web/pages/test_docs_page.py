"""The pages in a real browser, used as people use them: every way to sign in at /docs, and the gallery."""

import json
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from tests.support.api_keys import key_id_of
from tests.support.browser import Visit, visiting
from tests.support.identity import Account, Json, make_user, sign_in
from tests.support.server import RunningServer, TenantClient
from tests.support.upstream import FakeUpstream
from tests.web.builders import make_image

# What a database has no part in is tested over one.

PASSWORD_FLOW = "OAuth2 (OAuth2, password)"
CLIENT_FLOW = "OAuth2 (OAuth2, clientCredentials)"


@pytest.fixture
def visit(browser: Browser, server: RunningServer) -> Iterator[Visit]:
    """A visit in which nothing goes wrong but what the test takes out of ``refusals``."""
    with visiting(browser, server.url) as visit:
        yield visit
        visit.settle()
        assert visit.hosts() == {urlsplit(server.url).netloc}
        assert visit.complaints == []
        assert +visit.refusals == {}


@dataclass(frozen=True)
class DocsPage:
    """Swagger UI by what people see of it."""

    page: Page

    def close_dialog(self) -> None:
        """Close the dialog."""
        self.page.locator(".close-modal").click()

    def open_scheme(self, title: str) -> Locator:
        """Press the page's own Authorize button, and return the scheme's part of the dialog."""
        self.page.locator(".scheme-container").get_by_text("Authorize").click()
        return self.page.locator(".auth-container", has=self.page.get_by_role("heading", name=title))

    def authorize(self, scheme: Locator, values: dict[str, str]) -> None:
        """Fill the fields that have these labels, and press the scheme's Authorize button."""
        for label, value in values.items():
            scheme.locator(f'label:text-is("{label}:") + section input').fill(value)
        scheme.get_by_text("Authorize", exact=True).click()

    def sign_in(self, title: str, values: dict[str, str], *, location: str | None = None) -> None:
        """Authorize with success, the client's secret sent in ``location`` where there is a choice."""
        scheme = self.open_scheme(title)
        if location is not None:
            scheme.get_by_label("Client credentials location:").select_option(label=location)
        self.authorize(scheme, values)
        expect(scheme.get_by_text("Logout")).to_be_visible()
        self.close_dialog()

    def sign_out(self, title: str) -> None:
        """Press the scheme's Logout button."""
        self.open_scheme(title).get_by_text("Logout").click()
        self.close_dialog()

    def try_out(self, path: str, values: dict[str, str] | None = None) -> tuple[int, Json]:
        """The status and the body that the page shows for the operation at a path that has only one."""
        operation = self.page.locator(f'.opblock:has([data-path="{path}"])')
        again = operation.get_by_text("Clear", exact=True)
        if again.count():
            again.click()
        else:
            operation.locator(".opblock-summary-control").click()
            operation.get_by_text("Try it out").click()
        for name, value in (values or {}).items():
            operation.locator(f'tr[data-property-name="{name}"] input:not([type=checkbox])').fill(value)
        operation.get_by_text("Execute", exact=True).click()
        answer = operation.locator(".live-responses-table tr.response")
        body: Json = json.loads(answer.locator(".highlight-code code").first.inner_text())
        return int(answer.locator(".response-col_status").inner_text().split()[0]), body


@pytest.fixture
def docs(visit: Visit) -> DocsPage:
    """The open documentation."""
    visit.page.goto("/docs")
    return DocsPage(visit.page)


@pytest.fixture
def member(owner: TenantClient) -> Account:
    """A user of the owner's tenant."""
    return make_user(owner.http)


def client_of(owner: TenantClient) -> dict[str, str]:
    """What the fields for an OAuth client take: the key id, and the whole key."""
    return {"client_id": key_id_of(owner.api_key), "client_secret": owner.api_key}


def assert_is_signed_in(docs: DocsPage, owner: TenantClient, subject: str) -> None:
    status, me = docs.try_out("/me")
    assert (status, me["tenant"]["guid"], me["subject"]) == (200, owner.guid, subject)


def assert_can_sign_out(docs: DocsPage, visit: Visit, title: str) -> None:
    docs.sign_out(title)
    status, problem = docs.try_out("/me")
    assert (status, problem["code"]) == (401, "credential_missing")
    visit.refusals.subtract([(401, "/me")])


@pytest.mark.parametrize("title", ["Bearer", "ApiKeyHeader"])
def test_an_api_key_signs_in_and_out(title: str, docs: DocsPage, visit: Visit, owner: TenantClient) -> None:
    docs.sign_in(title, {"Value": owner.api_key})
    assert_is_signed_in(docs, owner, owner.http.get("/me").json()["subject"])
    assert_can_sign_out(docs, visit, title)


def test_an_access_token_signs_in(docs: DocsPage, owner: TenantClient, member: Account) -> None:
    docs.sign_in("Bearer", {"Value": sign_in(owner.http, member)["access_token"]})
    assert_is_signed_in(docs, owner, member.guid)


def test_a_user_signs_in_and_out_without_a_client(
    docs: DocsPage, visit: Visit, owner: TenantClient, member: Account
) -> None:
    docs.sign_in(PASSWORD_FLOW, {"username": member.username, "password": member.password})
    assert_is_signed_in(docs, owner, member.guid)
    assert_can_sign_out(docs, visit, PASSWORD_FLOW)


@pytest.mark.parametrize("location", ["Authorization header", "Request body"])
def test_a_user_signs_in_with_a_client(location: str, docs: DocsPage, owner: TenantClient, member: Account) -> None:
    values = {"username": member.username, "password": member.password, **client_of(owner)}
    docs.sign_in(PASSWORD_FLOW, values, location=location)
    assert_is_signed_in(docs, owner, member.guid)


def test_an_api_key_signs_in_and_out_as_an_oauth_client(docs: DocsPage, visit: Visit, owner: TenantClient) -> None:
    docs.sign_in(CLIENT_FLOW, client_of(owner))
    assert_is_signed_in(docs, owner, owner.http.get("/me").json()["subject"])
    assert_can_sign_out(docs, visit, CLIENT_FLOW)


def test_the_scopes_that_are_ticked_are_the_ones_asked_for(docs: DocsPage, owner: TenantClient) -> None:
    scheme = docs.open_scheme(CLIENT_FLOW)
    scheme.get_by_text("image:read", exact=True).click()
    docs.authorize(scheme, client_of(owner))
    expect(scheme.get_by_text("Logout")).to_be_visible()
    docs.close_dialog()
    assert docs.try_out("/me")[1]["scopes"] == ["image:read"]


def test_an_oauth_client_introspects_a_token(docs: DocsPage, owner: TenantClient, member: Account) -> None:
    client = client_of(owner)
    docs.sign_in("ClientBasic", {"Username": client["client_id"], "Password": client["client_secret"]})
    status, token = docs.try_out("/auth/introspect", {"token": sign_in(owner.http, member)["access_token"]})
    assert (status, token["active"], token["sub"]) == (200, True, member.guid)


def test_a_wrong_password_shows_the_error_of_the_token_endpoint(
    docs: DocsPage, visit: Visit, owner: TenantClient, member: Account
) -> None:
    wrong = {**member.password_form, "password": "wrong"}
    told = owner.http.post("/auth/token", data=wrong).json()
    scheme = docs.open_scheme(PASSWORD_FLOW)
    docs.authorize(scheme, {"username": member.username, "password": "wrong"})
    expect(scheme.locator(".errors")).to_contain_text(f"{told['error']}, description: {told['error_description']}")
    assert scheme.get_by_text("Logout").count() == 0
    visit.refusals.subtract([(400, "/auth/token")])


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_a_page_loads_nothing_from_elsewhere_and_a_visit_tells_of_it(path: str, visit: Visit) -> None:
    visit.page.goto(path)
    visit.page.evaluate("""new Promise((blocked) => {
        const picture = Object.assign(new Image(), { onerror: blocked, src: "https://elsewhere.invalid/picture.png" });
        document.body.append(picture);
    }).then(() => null)""")
    visit.settle()
    assert any(complaint.startswith("violates img-src") for complaint in visit.complaints)
    visit.complaints.clear()
    visit.requests.remove("https://elsewhere.invalid/picture.png")


def test_the_gallery_shows_a_new_public_picture_and_no_private_one(
    visit: Visit, tenant: TenantClient, upstream: FakeUpstream
) -> None:
    public, private = f"a public fox {uuid.uuid4()}", f"a private fox {uuid.uuid4()}"
    make_image(tenant, public, visibility="public")
    make_image(tenant, private, visibility="private")
    assert len(upstream.requests) == 2
    visit.page.goto("/")
    shown = visit.page.get_by_role("img", name=public)
    expect(shown).to_be_visible()
    expect(shown).to_have_js_property("complete", value=True)
    assert shown.evaluate("picture => picture.naturalWidth") > 0
    assert visit.page.get_by_text(private).count() == 0


def test_the_gallery_finds_public_pictures_alone(visit: Visit, tenant: TenantClient, upstream: FakeUpstream) -> None:
    word = f"fox{uuid.uuid4().hex}"
    make_image(tenant, f"a private {word}", visibility="private")
    make_image(tenant, "another", visibility="public")
    assert len(upstream.requests) == 2
    visit.page.goto("/")
    visit.page.get_by_label("Search the prompts").fill(word)
    expect(visit.page.get_by_text("Nothing found")).to_be_visible()
    expect(visit.page.get_by_role("img", name=word)).to_have_count(0)
