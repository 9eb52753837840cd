"""The pages in a real browser: both ways to sign in at /docs, its examples, and the gallery."""

import json
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, FilePayload, Locator, Page, expect

from tests.support.browser import Visit, visiting
from tests.support.identity import Account, Json, make_user
from tests.support.pictures import png
from tests.support.server import RunningServer, TenantClient
from tests.support.upstream import FakeUpstream
from tests.web.builders import make_image

# Independent of the database, so one is enough.

BEARER = "Bearer (http, Bearer)"
SIGN_IN = "SignIn (OAuth2, password)"


@pytest.fixture
def visit(browser: Browser, server: RunningServer) -> Iterator[Visit]:
    """Yield a visit that fails on any complaint, except those that the test removes."""
    with visiting(browser, server.url) as visit:
        yield visit
        visit.settle()
        assert visit.hosts() == {urlsplit(server.url).netloc}
        assert visit.complaints == []
        assert +visit.refusals == {}


@dataclass(frozen=True)
class DocsPage:
    """Swagger UI, through its visible elements."""

    page: Page

    def close_dialog(self) -> None:
        """Close the dialog."""
        self.page.locator(".close-modal").click()

    def open_scheme(self, title: str) -> Locator:
        """Press the page's Authorize button, and return the scheme's part of the dialog."""
        self.page.locator(".scheme-container").get_by_text("Authorize").click()
        return self.page.locator(".auth-container", has=self.page.get_by_role("heading", name=title))

    def authorize(self, scheme: Locator, values: dict[str, str]) -> None:
        """Fill the fields with these labels, and press the scheme's Authorize button."""
        for label, value in values.items():
            scheme.locator(f'label:text-is("{label}:") + section input').fill(value)
        scheme.get_by_text("Authorize", exact=True).click()

    def sign_in(self, title: str, values: dict[str, str]) -> None:
        """Authorize successfully."""
        scheme = self.open_scheme(title)
        self.authorize(scheme, values)
        expect(scheme.get_by_text("Logout")).to_be_visible()
        self.close_dialog()

    def sign_out(self, title: str) -> None:
        """Press the scheme's Logout button."""
        self.open_scheme(title).get_by_text("Logout").click()
        self.close_dialog()

    def open(self, operation_id: str) -> Locator:
        """Open an operation and press its Try it out button, which fills in the examples."""
        operation = self.page.locator(f'.opblock[id$="-{operation_id}"]')
        operation.locator(".opblock-summary-control").click()
        operation.get_by_text("Try it out").click()
        return operation

    def execute(self, operation: Locator) -> tuple[int, Json]:
        """Press Execute, and return the displayed status and body."""
        operation.get_by_text("Execute", exact=True).click()
        answer = operation.locator(".live-responses-table tr.response")
        body: Json = json.loads(answer.locator(".highlight-code code").first.inner_text())
        return int(answer.locator(".response-col_status").inner_text().split()[0]), body

    def me(self) -> tuple[int, Json]:
        """Return the response to ``GET /me``."""
        operation = self.page.locator('.opblock[id$="-get_me"]')
        again = operation.get_by_text("Clear", exact=True)
        if again.count():
            again.click()
        else:
            self.open("get_me")
        return self.execute(operation)


@pytest.fixture
def docs(visit: Visit) -> DocsPage:
    """Return the open documentation."""
    visit.page.goto("/docs")
    return DocsPage(visit.page)


@pytest.fixture
def member(owner: TenantClient) -> Account:
    """Return a user of the owner's tenant."""
    return make_user(owner.http)


def assert_can_sign_out(docs: DocsPage, visit: Visit, title: str) -> None:
    docs.sign_out(title)
    status, problem = docs.me()
    assert (status, problem["code"]) == (401, "credential_missing")
    visit.refusals.subtract([(401, "/me")])


def test_api_key_authorizes_examples_that_generate_and_edit(
    docs: DocsPage, visit: Visit, owner: TenantClient, upstream: FakeUpstream
) -> None:
    docs.sign_in(BEARER, {"Value": owner.api_key})
    status, me = docs.me()
    assert (status, me["tenant"]["guid"]) == (200, owner.guid)

    status, image = docs.execute(docs.open("create_image"))
    assert (status, image["prompt"], image["width"]) == (201, "a red fox in the snow", 1024)

    edit = docs.open("edit_openai_image")
    picture: FilePayload = {"name": "fox.png", "mimeType": "image/png", "buffer": png(256, 256)}
    edit.locator('tr[data-property-name="image"] input[type=file]').set_input_files([picture])
    status, answer = docs.execute(edit)
    assert (status, len(answer.get("data", []))) == (200, 1), answer
    assert upstream.requests[1].prompt == "the same, at night under a full moon"

    assert_can_sign_out(docs, visit, BEARER)
    # Swagger UI searches for a component for the items of a list of files, and continues without it.
    assert set(visit.complaints) == {"Could not find component: JsonSchema_string_binary"}
    visit.complaints.clear()


def test_user_signs_in_with_selected_scopes(docs: DocsPage, visit: Visit, owner: TenantClient, member: Account) -> None:
    wrong = {**member.password_form, "password": "wrong"}
    told = owner.http.post("/auth/token", data=wrong).json()
    scheme = docs.open_scheme(SIGN_IN)
    expect(docs.page.locator(".auth-container h4")).to_have_text([BEARER, SIGN_IN])
    scheme.get_by_text("image:read", exact=True).click()
    docs.authorize(scheme, {"username": member.username, "password": "wrong"})
    expect(scheme.locator(".errors")).to_contain_text(f"{told['error']}, description: {told['error_description']}")
    assert scheme.get_by_text("Logout").count() == 0
    visit.refusals.subtract([(400, "/auth/token")])

    docs.authorize(scheme, {"password": member.password})
    expect(scheme.get_by_text("Logout")).to_be_visible()
    docs.close_dialog()
    status, me = docs.me()
    assert (status, me["subject"], me["scopes"]) == (200, member.guid, ["image:read"])
    assert_can_sign_out(docs, visit, SIGN_IN)


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_page_blocks_other_hosts_and_visit_reports_it(path: str, visit: Visit) -> None:
    visit.page.goto(path)
    visit.page.evaluate("""new Promise((blocked) => {
        const picture = Object.assign(new Image(), { onerror: blocked, src: "https://elsewhere.invalid/picture.png" });
        document.body.append(picture);
    }).then(() => null)""")
    visit.settle()
    assert any(complaint.startswith("violates img-src") for complaint in visit.complaints)
    visit.complaints.clear()
    visit.requests.remove("https://elsewhere.invalid/picture.png")


def test_gallery_shows_new_public_but_no_private_pictures(
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


def test_gallery_search_finds_only_public_pictures(visit: Visit, tenant: TenantClient, upstream: FakeUpstream) -> None:
    word = f"fox{uuid.uuid4().hex}"
    make_image(tenant, f"a private {word}", visibility="private")
    make_image(tenant, "another", visibility="public")
    assert len(upstream.requests) == 2
    visit.page.goto("/")
    visit.page.get_by_label("Search the prompts").fill(word)
    expect(visit.page.get_by_text("Nothing found")).to_be_visible()
    expect(visit.page.get_by_role("img", name=word)).to_have_count(0)
