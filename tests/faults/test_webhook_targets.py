"""Webhooks reach public addresses only, whatever a URL looks like or resolves to, at any time (SSRF)."""

import asyncio
import socket
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from ipaddress import ip_address
from pathlib import Path

import httpx2
import pytest
from pydantic import SecretStr

from pixyproxy.core import clock
from pixyproxy.core.exceptions import WebhookTargetException
from pixyproxy.core.models.tenant import Tenant, TenantId
from pixyproxy.core.models.webhook import DeliveryDetail, NewWebhook
from pixyproxy.data.database import Database
from pixyproxy.service.private.guarded_http import (
    RESOLVING_AT_ONCE_FOR_NO_TENANT,
    RESOLVING_AT_ONCE_PER_TENANT,
    CheckedTarget,
    GuardedHttpClient,
    is_public,
    open_guarded_http_client,
    resolve_host,
)
from pixyproxy.service.private.webhooks.delivery import WebhookDelivery
from pixyproxy.service.private.webhooks.subscriptions import WebhookSecrets, WebhookService, enqueue
from tests.service.private.identities import grantor_of
from tests.support.builders import add_tenant
from tests.support.webhook_receiver import Certificate, WebhookReceiver, make_certificate, new_outcome

pytestmark = pytest.mark.anyio
PUBLIC = "93.184.216.34"
NAME = "hooks.example.com"

INSIDE = [
    "127.0.0.1",
    "127.1.2.3",
    "0.0.0.0",  # noqa: S104  (rejected, not bound)
    "0.1.2.3",
    "10.0.0.1",
    "172.16.0.1",
    "172.31.255.255",
    "192.168.1.1",
    "169.254.169.254",
    "169.254.170.2",
    "100.64.0.1",
    "100.100.100.200",
    "168.63.129.16",
    "192.0.0.192",
    "192.0.2.1",
    "192.88.99.1",
    "198.18.0.1",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "239.255.255.250",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::127.0.0.1",
    "::7f00:1",
    "::ffff:127.0.0.1",
    "::ffff:7f00:1",
    "::ffff:10.0.0.1",
    "::ffff:169.254.169.254",
    "::ffff:0:127.0.0.1",
    "64:ff9b::127.0.0.1",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::1",
    "2002:7f00:1::",
    "2002:a9fe:a9fe::1",
    "2002:c0a8:101::1",
    "2001:0:7f00:1::",
    "2001:db8::1",
    "3fff::1",
    "5f00::1",
    "100::1",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fe80::a9fe:a9fe%eth0",
    "fec0::1",
    "ff02::1",
    "ff0e::1",
]
OUTSIDE = [PUBLIC, "1.1.1.1", "2606:4700:4700::1111", "::ffff:1.1.1.1", "64:ff9b::1.1.1.1", "2002:101:101::1"]
SPELLINGS = [
    "https://localhost/",
    "https://LOCALHOST/",
    "https://localhost./",
    "https://127.0.0.1./",
    "https://127.1/",
    "https://127.0.1/",
    "https://2130706433/",
    "https://2130706433./",
    "https://0x7f000001/",
    "https://0x7f.0.0.1/",
    "https://0X7F.1/",
    "https://017700000001/",
    "https://0177.0.0.1/",
    "https://127.0.0.01/",
    "https://127.0.0.0x1/",
    "https://0/",
    "https://0x/",
    "https://256.256.256.256/",
    "https://1.2.3.4.5/",
    "https://[::1]/",
    "https://[0:0:0:0:0:0:0:1]/",
    "https://[::ffff:127.0.0.1]/",
    "https://[::ffff:7f00:1]:8443/",
    "https://[fe80::1%25lo]/",
    "https://[fe80::1%lo]/",
    "https://[::1/",
    "https://[127.0.0.1]/",
    "https://127.0.0.1:443/",
    "https://1.1.1.1@127.0.0.1/",
    "https://user:password@example.com/",
    "https://@example.com/",
    "https://127.0.0.1#@example.com/",
    "https://example.com\\@127.0.0.1/",
    "https://127.0.0.1\\.example.com/",
    "https://127\u30020\u30020\u30021/",
    "https://\uff11\uff12\uff17.0.0.1/",
    "https://ⓛⓞⓒⓐⓛⓗⓞⓢⓣ/",
    "https://%6c%6f%63%61%6c%68%6f%73%74/",
    "https://127.0.0.1%2f.example.com/",
    "https://exa mple.com/",
    "https://example.com/\r\nHost: 127.0.0.1",
    "https://example.com\t/",
    "https://exam\x00ple.com/",
    "https://.example.com/",
    "https://example..com/",
    "https://-example.com/",
    f"https://{'a' * 64}.example.com/",
    f"https://{'a.' * 130}com/",
    "https:///etc/passwd",
    "https:example.com/",
    "//example.com/",
    "example.com",
    "http://1.1.1.1/",
    "http://127.0.0.1/",
    "HTTP://1.1.1.1/",
    "ftp://1.1.1.1/",
    "file:///etc/passwd",
    "gopher://127.0.0.1:6379/_x",
    "javascript:alert(1)",
    "unix:///run/docker.sock",
    "https://1.1.1.1:99999/",
    "https://1.1.1.1:-1/",
    "https://1.1.1.1:x/",
    " ",
]


@dataclass
class FakeResolver:
    """Returns the next of its lists for each lookup, and the last one forever."""

    answers: list[list[str]]
    asked: int = 0

    async def __call__(self, host: str) -> Sequence[str]:
        """Return the next list."""
        self.asked += 1
        assert host
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


async def _fail(_host: str) -> Sequence[str]:
    raise socket.gaierror


async def _hang(_host: str) -> Sequence[str]:
    await asyncio.sleep(3600)
    return [PUBLIC]


@pytest.fixture
async def targets() -> AsyncIterator[GuardedHttpClient]:
    """Yield a guarded client of an operator who allows no internal address."""
    opened = open_guarded_http_client(())
    yield opened
    await opened.close()


@pytest.fixture
def receiver() -> Iterator[WebhookReceiver]:
    """Yield an internal server that must not be reached."""
    with WebhookReceiver() as inside:
        yield inside


@pytest.fixture(scope="module")
def certificate() -> Certificate:
    """Return a certificate of ``NAME``."""
    return make_certificate(NAME)


async def _assert_refused(targets: GuardedHttpClient, url: str) -> None:
    with pytest.raises(WebhookTargetException):
        await targets.check(url)


@pytest.mark.parametrize("address", INSIDE)
def test_an_internal_address_is_not_public(address: str) -> None:
    assert not is_public(ip_address(address))


@pytest.mark.parametrize("address", OUTSIDE)
def test_an_external_address_is_public(address: str) -> None:
    assert is_public(ip_address(address))


@pytest.mark.parametrize("address", INSIDE)
async def test_a_name_with_an_internal_address_is_rejected_after_resolution(
    targets: GuardedHttpClient, address: str
) -> None:
    for answer in ([address], [PUBLIC, address], [address, PUBLIC]):
        await _assert_refused(replace(targets, resolve=FakeResolver([answer])), f"https://{NAME}/")


@pytest.mark.parametrize("address", OUTSIDE)
async def test_a_name_with_an_external_address_is_accepted(targets: GuardedHttpClient, address: str) -> None:
    resolver = FakeResolver([[address, PUBLIC]])
    checked = await replace(targets, resolve=resolver).check(f"https://{NAME.upper()}.:8443/a?b#c")
    assert (checked.host, checked.addresses, resolver.asked) == (NAME, (address, PUBLIC), 1)


@pytest.mark.parametrize("url", SPELLINGS, ids=ascii)
async def test_no_spelling_reaches_an_internal_address(targets: GuardedHttpClient, url: str) -> None:
    await _assert_refused(targets, url)


@pytest.mark.parametrize("resolve", [_fail, _hang, FakeResolver([[]])], ids=["unknown", "silent", "empty"])
async def test_an_unknown_and_an_internal_name_get_the_same_error(
    targets: GuardedHttpClient, resolve: FakeResolver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pixyproxy.service.private.guarded_http.CONNECT_SECONDS", 0.01)
    told = set()
    for each in (resolve, FakeResolver([["10.0.0.1"]])):
        with pytest.raises(WebhookTargetException) as caught:
            await replace(targets, resolve=each).check(f"https://{NAME}/")
        told.add((str(caught.value), str(caught.value.context)))
    assert len(told) == 1


@dataclass
class HangingResolver:
    """Returns its result once released."""

    may_answer: asyncio.Event = field(default_factory=asyncio.Event)
    asked: int = 0

    async def __call__(self, _host: str) -> Sequence[str]:
        """Return an external address."""
        self.asked += 1
        await self.may_answer.wait()
        return [PUBLIC]


async def _give_up(checks: Sequence["asyncio.Task[CheckedTarget]"]) -> None:
    for check in checks:
        check.cancel()
    await asyncio.gather(*checks, return_exceptions=True)


@pytest.mark.parametrize(
    ("tenant_id", "most"), [(TenantId(1), RESOLVING_AT_ONCE_PER_TENANT), (None, RESOLVING_AT_ONCE_FOR_NO_TENANT)]
)
async def test_a_hanging_name_server_delays_one_tenant_and_no_other(
    targets: GuardedHttpClient, tenant_id: TenantId | None, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Check that abandoned lookups still count, because their threads have not finished."""
    monkeypatch.setattr("pixyproxy.service.private.guarded_http.CONNECT_SECONDS", 60)
    resolver = HangingResolver()
    hanging = replace(targets, resolve=resolver)
    checks = [asyncio.create_task(hanging.check(f"https://{NAME}/", tenant_id=tenant_id)) for _ in range(most)]
    while resolver.asked < most:  # noqa: ASYNC110  (a plain counter, without an event)
        await asyncio.sleep(0)
    await _give_up(checks)
    waiting = [asyncio.create_task(hanging.check(f"https://{NAME}/", tenant_id=tenant_id)) for _ in range(2 * most)]
    other = replace(hanging, resolve=FakeResolver([[PUBLIC]]))
    assert (await other.check(f"https://{NAME}/", tenant_id=TenantId(2))).addresses == (PUBLIC,)
    assert resolver.asked == most
    resolver.may_answer.set()
    assert {checked.addresses for checked in await asyncio.gather(*waiting)} == {(PUBLIC,)}
    assert resolver.asked == 3 * most
    assert hanging.resolving == {}


async def test_hanging_lookups_are_abandoned_when_the_server_stops(targets: GuardedHttpClient) -> None:
    resolver = HangingResolver()
    check = asyncio.create_task(replace(targets, resolve=resolver).check(f"https://{NAME}/"))
    while not resolver.asked:  # noqa: ASYNC110
        await asyncio.sleep(0)
    await _give_up([check])
    assert len(targets.resolving) == 1
    await targets.close()
    for _ in range(10):
        await asyncio.sleep(0)
    assert targets.resolving == {}


async def test_the_operating_system_resolves_names(targets: GuardedHttpClient) -> None:
    with ThreadPoolExecutor(1) as threads:
        assert await resolve_host("127.0.0.1", threads=threads) == ["127.0.0.1"]
    assert (await targets.check(f"https://{PUBLIC}/")).addresses == (PUBLIC,)


@pytest.mark.parametrize(
    ("allowed", "url", "answer"),
    [
        ("10.0.0.0/8", f"http://{NAME}/", ["10.1.2.3"]),
        ("10.1.2.3", f"https://{NAME}/", [PUBLIC, "10.1.2.3"]),
        ("10.1.2.3/8", "http://10.9.9.9/", ["10.9.9.9"]),
        ("fd00::/8", "http://[fd00::1]:8080/", ["fd00::1"]),
        (NAME.upper(), f"http://{NAME}/", ["127.0.0.1"]),
        (NAME, f"https://{NAME}./", ["::1"]),
    ],
)
async def test_addresses_that_the_operator_allows_are_accepted(
    targets: GuardedHttpClient, allowed: str, url: str, answer: list[str]
) -> None:
    permitting = open_guarded_http_client([allowed])
    resolve = FakeResolver([answer])
    assert (await replace(permitting, resolve=resolve).check(url)).addresses == tuple(answer)
    await _assert_refused(replace(targets, resolve=resolve), url)
    await permitting.close()


@pytest.mark.parametrize(
    ("url", "answer"),
    [
        (f"http://{NAME}/", ["10.1.2.3", PUBLIC]),
        (f"http://{NAME}/", [PUBLIC]),
        (f"https://{NAME}/", ["10.1.2.3", "10.2.2.3"]),
        (f"https://sub.{NAME}/", ["192.168.0.1"]),
        ("http://user@allowed.example/", ["10.1.2.3"]),
    ],
)
async def test_allowed_addresses_allow_no_others(url: str, answer: list[str]) -> None:
    permitting = open_guarded_http_client(["10.1.0.0/16", f"other.{NAME}", "allowed.example"])
    await _assert_refused(replace(permitting, resolve=FakeResolver([answer])), url)
    await permitting.close()


@dataclass(frozen=True)
class Story:
    """A tenant that creates a webhook and is notified of one generation."""

    database: Database
    tenant: Tenant
    targets: GuardedHttpClient

    async def tell(self, url: str) -> DeliveryDetail:
        """Return the result of the one delivery to a new webhook with this URL. Raise as ``create_webhook`` does."""
        secrets = WebhookSecrets(SecretStr("server"))
        service = WebhookService(database=self.database, secrets=secrets, targets=self.targets)
        issued = await service.create_webhook(NewWebhook(url=url), grantor=grantor_of(self.tenant))
        outcome = new_outcome(self.tenant.id, at=clock.now())
        await self.database.write(lambda data: enqueue(data, outcome))
        delivery = WebhookDelivery(database=self.database, secrets=secrets, targets=self.targets)
        (due,) = await delivery.claim_due(Counter())
        await delivery.attempt(due)
        (told,) = await service.list_deliveries(issued.detail.guid, tenant_id=self.tenant.id)
        return told


@pytest.fixture
async def story(database: Database, targets: GuardedHttpClient) -> Story:
    """Return the story of a tenant whose operator allows no internal address."""
    return Story(database=database, tenant=await database.write(add_tenant), targets=targets)


async def test_a_webhook_with_an_internal_address_is_not_created(story: Story, receiver: WebhookReceiver) -> None:
    for url in (receiver.url(), f"https://127.0.0.1:{receiver.port}/", f"https://localhost:{receiver.port}/"):
        with pytest.raises(WebhookTargetException):
            await story.tell(url)
    assert receiver.received == []


async def test_a_name_that_later_resolves_to_an_internal_address_is_rejected_then(
    story: Story, receiver: WebhookReceiver
) -> None:
    resolver = FakeResolver([[PUBLIC], ["127.0.0.1"]])
    told = await replace(story, targets=replace(story.targets, resolve=resolver)).tell(
        f"https://{NAME}:{receiver.port}/"
    )
    assert (told.status, told.problem, told.attempts) == ("pending", "target_refused", 1)
    assert (receiver.received, resolver.asked) == ([], 2)


async def test_the_connection_goes_to_the_address_that_was_checked(
    story: Story, certificate: Certificate, receiver: WebhookReceiver
) -> None:
    """Change the name's address between check and connection: it is not resolved again."""
    with WebhookReceiver(certificate) as outside:
        opened = open_guarded_http_client(["127.0.0.1/32"], verify=certificate.client_context())
        resolver = FakeResolver([["127.0.0.1"], ["127.0.0.1"], ["127.0.0.2"]])
        told = await replace(story, targets=replace(opened, resolve=resolver)).tell(outside.url(NAME))
        await opened.close()
    assert (told.status, told.response_status, resolver.asked) == ("delivered", 204, 2)
    (received,) = outside.received
    assert received.headers["host"] == f"{NAME}:{outside.port}"
    assert receiver.received == []


@pytest.mark.parametrize("name", ["other.example.com", "127.0.0.1"])
async def test_the_certificate_must_match_the_host(story: Story, certificate: Certificate, name: str) -> None:
    with WebhookReceiver(certificate) as receiver:
        opened = open_guarded_http_client(["127.0.0.1/32"], verify=certificate.client_context())
        told = await replace(story, targets=replace(opened, resolve=FakeResolver([["127.0.0.1"]]))).tell(
            receiver.url(name)
        )
        await opened.close()
    assert (told.problem, receiver.received) == ("unreachable", [])


async def test_a_certificate_that_only_the_environment_trusts_is_rejected(
    story: Story, certificate: Certificate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authorities = tmp_path / "authorities.pem"
    authorities.write_text(certificate.certificate)
    monkeypatch.setenv("SSL_CERT_FILE", str(authorities))
    with WebhookReceiver(certificate) as receiver:
        opened = open_guarded_http_client(["127.0.0.1/32"])
        told = await replace(story, targets=replace(opened, resolve=FakeResolver([["127.0.0.1"]]))).tell(
            receiver.url(NAME)
        )
        await opened.close()
    assert (told.problem, receiver.received) == ("unreachable", [])


async def test_an_address_can_have_its_own_certificate(story: Story) -> None:
    certificate = make_certificate("127.0.0.1")
    with WebhookReceiver(certificate) as receiver:
        opened = open_guarded_http_client(["127.0.0.1/32"], verify=certificate.client_context())
        told = await replace(story, targets=opened).tell(receiver.url())
        await opened.close()
    assert (told.status, told.response_status) == ("delivered", 204)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirects_are_not_followed(story: Story, receiver: WebhookReceiver, status: int) -> None:
    with WebhookReceiver() as outside:
        outside.statuses = [status]
        outside.headers = {"Location": receiver.url()}
        opened = open_guarded_http_client(["127.0.0.1/32"])
        told = await replace(story, targets=opened).tell(outside.url())
        await opened.close()
    assert (told.status, told.response_status) == ("pending", status)
    assert (len(outside.received), receiver.received) == (1, [])


async def test_proxies_and_credentials_of_the_environment_are_not_used(
    story: Story, receiver: WebhookReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    with WebhookReceiver() as outside:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, f"http://user:password@127.0.0.1:{receiver.port}")
        opened = open_guarded_http_client(["127.0.0.1/32"])
        told = await replace(story, targets=opened).tell(outside.url())
        await opened.close()
    assert (told.status, receiver.received) == ("delivered", [])
    (received,) = outside.received
    assert "authorization" not in received.headers


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 2", b"no HTTP\r\n\r\n"], ids=["nothing", "cut", "no HTTP"])
async def test_a_body_sent_to_one_address_is_not_sent_to_the_next(
    targets: GuardedHttpClient, receiver: WebhookReceiver, answer: bytes
) -> None:
    content, arrived = b'{"event": 1}', []

    async def break_off(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        arrived.append(await reader.readuntil(content))
        writer.write(answer)
        writer.close()

    checked = replace(targets, hosts=frozenset({NAME}), resolve=FakeResolver([["127.0.0.2", "127.0.0.1"]]))
    target = await checked.check(f"http://{NAME}:{receiver.port}/hook")
    async with await asyncio.start_server(break_off, "127.0.0.2", receiver.port):
        with pytest.raises(httpx2.TransportError):
            await checked.post(target, headers={}, content=content)
    assert (len(arrived), receiver.received) == (1, [])


async def test_the_next_address_is_tried_if_one_cannot_be_reached(
    targets: GuardedHttpClient, receiver: WebhookReceiver
) -> None:
    with socket.create_server(("127.0.0.2", 0)) as bound:
        closed = bound.getsockname()[1]
    checked = replace(targets, hosts=frozenset({NAME}), resolve=FakeResolver([["127.0.0.2", "127.0.0.1"]]))
    target = await checked.check(f"http://{NAME}:{receiver.port}/hook")
    assert await checked.post(target, headers={}, content=b"{}") == 204
    with pytest.raises(httpx2.ConnectError):
        await checked.post(await checked.check(f"http://{NAME}:{closed}/"), headers={}, content=b"{}")
