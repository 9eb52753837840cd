"""The SSRF guard: call URLs that tenants or upstreams name, but nothing in this server's own network.

A host is resolved right before each call, all of its addresses must be public, and the connection goes to the
checked address, so that DNS rebinding has no effect. The certificate is verified against the host name. Redirects are
not followed, cookies are not kept, and proxies and certificates of the environment are not used.
"""

import asyncio
import re
import socket
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property, partial
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

import httpx2

from pixyproxy.core.exceptions import WebhookTargetException
from pixyproxy.core.models.tenant import TenantId

CONNECT_SECONDS = 5.0
RESOLVING_AT_ONCE = 64
"""Threads for DNS look-ups: a name server can make one hang for 30 s, and a hanging thread cannot be ended."""
RESOLVING_AT_ONCE_PER_TENANT = 4
"""Limit for each tenant, so that a tenant whose name server hangs does not block the others."""
RESOLVING_AT_ONCE_FOR_NO_TENANT = RESOLVING_AT_ONCE // 2
ADDRESSES_TRIED = 4
PORTS = range(1, 65_536)
DNS_NAME = re.compile(r"(?=.{1,253}\Z)[a-z0-9_]([a-z0-9_-]{0,62})(\.[a-z0-9_][a-z0-9_-]{0,62})*")
NUMERIC_LABEL = re.compile(r"[0-9]+|0x[0-9a-f]*")
"""A host whose last label matches is an IPv4 address (WHATWG URL, "ends in a number")."""
GLOBAL_UNICAST = IPv6Network("2000::/3")
NAT64 = IPv6Network("64:ff9b::/96")
ELSEWHERE = (
    IPv4Network("192.0.0.0/24"),  # IETF; Oracle's metadata. Python 3.11.7 knows only its first eight addresses.
    IPv4Network("168.63.129.16/32"),  # Azure's metadata, on a public address
    IPv4Network("192.88.99.0/24"),  # 6to4 relays (RFC 7526)
    IPv6Network("3fff::/20"),  # documentation (RFC 9637); not in Python 3.11's list
)

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
Resolve = Callable[[str], Awaitable[Sequence[str]]]
"""Returns the addresses of a host. Raises ``OSError`` if there are none."""


@dataclass(frozen=True)
class CheckedTarget:
    """A URL and the checked addresses of its host."""

    url: httpx2.URL
    host: str
    addresses: tuple[str, ...]


@dataclass(frozen=True)
class GuardedHttpClient:
    """Checks and calls URLs; ``hosts`` and ``networks`` are allowed by the operator in addition to public addresses."""

    hosts: frozenset[str]
    networks: tuple[Network, ...]
    resolve: Resolve
    verify: ssl.SSLContext | bool = True
    resolving: dict["asyncio.Future[Sequence[str]]", TenantId | None] = field(default_factory=dict)
    """All look-ups whose threads are running, including abandoned ones, by tenant."""

    @cached_property
    def transport(self) -> httpx2.AsyncBaseTransport:
        """The HTTP transport, created at the first call: loading all certificates takes 30 ms.

        Connections are not reused: one could serve another tenant's host at the same address, although its
        certificate was verified for this tenant's host.
        """
        limits = httpx2.Limits(max_keepalive_connections=0)
        return httpx2.AsyncHTTPTransport(verify=self.verify, limits=limits, trust_env=False)

    async def check(self, text: str, *, tenant_id: TenantId | None = None) -> CheckedTarget:
        """Return the target that a URL names. Raises ``WebhookTargetException`` if it must not or cannot be called.

        The same error covers names that do not exist, names that are not public and look-ups that time out, so
        that a caller cannot probe the operator's network. A look-up waits while too many of the tenant hang.
        """
        url, host = _parse(text)
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                addresses = tuple(await self._look_up(host, tenant_id))
        except (OSError, UnicodeError) as error:
            raise WebhookTargetException from error
        is_allowed = host in self.hosts or all(map(self._is_in_allowed_network, addresses))
        if not addresses or not (is_allowed or (url.scheme == "https" and all(map(self._is_permitted, addresses)))):
            raise WebhookTargetException
        return CheckedTarget(url=url, host=host, addresses=addresses[:ADDRESSES_TRIED])

    async def post(self, target: CheckedTarget, *, headers: Mapping[str, str], content: bytes) -> int:
        """Send a POST request and return the status; the response body is not read.

        Raises ``httpx2.TransportError``, also for an invalid certificate. The caller sets the timeout.
        """
        response = await self._send("POST", target, headers, content)
        await response.aclose()
        return response.status_code

    async def get(self, target: CheckedTarget, *, headers: Mapping[str, str]) -> httpx2.Response:
        """Send a GET request and return the response with its body unread; the caller closes it.

        Raises as ``post`` does. The caller sets the timeout.
        """
        return await self._send("GET", target, headers, b"")

    async def close(self) -> None:
        """Close every connection, and cancel look-ups that hang."""
        for each in list(self.resolving):
            each.cancel()
        if "transport" in vars(self):
            await self.transport.aclose()

    async def _look_up(self, host: str, tenant_id: TenantId | None) -> Sequence[str]:
        """Resolve a host as soon as the tenant has a free thread."""
        most = RESOLVING_AT_ONCE_FOR_NO_TENANT if tenant_id is None else RESOLVING_AT_ONCE_PER_TENANT
        while len(own := [each for each, owner in self.resolving.items() if owner == tenant_id]) >= most:
            await asyncio.wait(own, return_when=asyncio.FIRST_COMPLETED)
        look_up = asyncio.ensure_future(self.resolve(host))
        self.resolving[look_up] = tenant_id
        look_up.add_done_callback(self._looked_up)
        # A caller that times out must not cancel the look-up: its thread continues and stays counted.
        return await asyncio.shield(look_up)

    def _looked_up(self, look_up: "asyncio.Future[Sequence[str]]") -> None:
        del self.resolving[look_up]
        if not look_up.cancelled():
            # Retrieve the exception: the caller may have timed out.
            look_up.exception()

    async def _send(
        self, method: str, target: CheckedTarget, headers: Mapping[str, str], content: bytes
    ) -> httpx2.Response:
        """Send a request to the first of the target's addresses that accepts the connection."""
        *others, last = target.addresses
        for address in others:
            try:
                return await self._send_to(address, method, target, headers, content)
            except (httpx2.ConnectError, httpx2.ConnectTimeout):
                continue
        return await self._send_to(last, method, target, headers, content)

    async def _send_to(
        self, address: str, method: str, target: CheckedTarget, headers: Mapping[str, str], content: bytes
    ) -> httpx2.Response:
        request = httpx2.Request(
            method,
            target.url.copy_with(host=address),
            headers={"Host": target.url.netloc.decode("ascii"), "Connection": "close", **headers},
            content=content,
            # The name for SNI and certificate verification, since the URL holds the address.
            extensions={"sni_hostname": target.host, "timeout": httpx2.Timeout(CONNECT_SECONDS, read=None).as_dict()},
        )
        return await self.transport.handle_async_request(request)

    def _is_permitted(self, address: str) -> bool:
        return is_public(ip_address(address)) or self._is_in_allowed_network(address)

    def _is_in_allowed_network(self, address: str) -> bool:
        return any(ip_address(address) in network for network in self.networks)


def open_guarded_http_client(allowed: Sequence[str], *, verify: ssl.SSLContext | bool = True) -> GuardedHttpClient:
    """Return the guard for public addresses and the additional allowed hosts and networks (CIDR)."""
    networks = {name: network for name in allowed if (network := _as_network(name)) is not None}
    return GuardedHttpClient(
        hosts=frozenset(name.lower().rstrip(".") for name in allowed if name not in networks),
        networks=tuple(networks.values()),
        resolve=partial(resolve_host, threads=ThreadPoolExecutor(RESOLVING_AT_ONCE)),
        verify=verify,
    )


async def resolve_host(host: str, *, threads: Executor) -> list[str]:
    """Return the addresses of a host in the operating system's order. Raises ``OSError``."""
    look_up = partial(socket.getaddrinfo, host, None, type=socket.SOCK_STREAM)
    found = await asyncio.get_running_loop().run_in_executor(threads, look_up)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


def is_public(address: Address) -> bool:
    """Return whether an address is public; addresses embedded in it are checked too."""
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return is_public(address.ipv4_mapped)
        if address in NAT64:
            return is_public(IPv4Address(address.packed[-4:]))
        if address not in GLOBAL_UNICAST or (address.sixtofour is not None and not is_public(address.sixtofour)):
            return False
    return address.is_global and not address.is_multicast and not any(address in network for network in ELSEWHERE)


def _parse(text: str) -> tuple[httpx2.URL, str]:
    """Return the URL, and its host in lower case without a trailing dot. Raises ``WebhookTargetException``."""
    if re.fullmatch(r"[\x21-\x5b\x5d-\x7e]+", text) is None:
        raise WebhookTargetException(
            message="The URL must be ASCII, without spaces, backslashes or control characters."
        )
    try:
        url = httpx2.URL(text)
    except httpx2.InvalidURL as error:
        raise WebhookTargetException(message="The URL is invalid.") from error
    if url.scheme not in {"http", "https"} or not url.host or (url.port is not None and url.port not in PORTS):
        raise WebhookTargetException(message="The URL must start with https:// and a host.")
    if "@" in text.split("//", 1)[1].split("/", 1)[0] or url.userinfo:
        raise WebhookTargetException(message="The URL must not contain a user name or password.")
    return url, _host_of(url)


def _host_of(url: httpx2.URL) -> str:
    host = url.host.lower().removesuffix(".")
    if url.netloc.startswith(b"["):
        # No zone: the operating system would read such an address differently.
        valid = re.fullmatch(r"[0-9a-f:.]+", host) is not None
    elif NUMERIC_LABEL.fullmatch(host.rpartition(".")[2]):
        valid = _is_ipv4(host)
    else:
        valid = DNS_NAME.fullmatch(host) is not None
    if not valid:
        raise WebhookTargetException(message="The URL's host must be a DNS name or an IP address in its usual form.")
    return host


def _is_ipv4(host: str) -> bool:
    """Return whether a host is four decimal numbers without leading zeros."""
    try:
        return bool(IPv4Address(host))
    except ValueError:
        return False


def _as_network(name: str) -> Network | None:
    try:
        return ip_network(name, strict=False)
    except ValueError:
        return None
