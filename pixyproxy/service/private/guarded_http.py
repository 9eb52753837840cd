"""Calling URLs that tenants or upstreams have named, and never anything of this server's own network.

A host is resolved right before each call, every address that it has must be public, and the connection goes to the
very address that was checked: a name that means another one a moment later gains nothing. The certificate is verified
against the name. Redirects are not followed, cookies not kept, and nothing of the environment is used: no proxy, no
certificates.
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
"""In threads of their own: a name server can make a look-up hang for half a minute, and nothing can end its thread."""
RESOLVING_AT_ONCE_PER_TENANT = 4
"""Of those threads, so that a tenant whose name server hangs keeps none from the others, however often it asks."""
RESOLVING_AT_ONCE_FOR_NO_TENANT = RESOLVING_AT_ONCE // 2
ADDRESSES_TRIED = 4
PORTS = range(1, 65_536)
DNS_NAME = re.compile(r"(?=.{1,253}\Z)[a-z0-9_]([a-z0-9_-]{0,62})(\.[a-z0-9_][a-z0-9_-]{0,62})*")
NUMERIC_LABEL = re.compile(r"[0-9]+|0x[0-9a-f]*")
"""A last label like this makes a name an IPv4 address (WHATWG URL, "ends in a number")."""
GLOBAL_UNICAST = IPv6Network("2000::/3")
NAT64 = IPv6Network("64:ff9b::/96")
ELSEWHERE = (
    IPv4Network("192.0.0.0/24"),  # of the IETF; Oracle's metadata. Python 3.11.7 knows only its first eight addresses.
    IPv4Network("168.63.129.16/32"),  # Azure's metadata, on a public address
    IPv4Network("192.88.99.0/24"),  # relays of 6to4 (RFC 7526)
    IPv6Network("3fff::/20"),  # documentation (RFC 9637), newer than Python 3.11's own list
)

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
Resolve = Callable[[str], Awaitable[Sequence[str]]]
"""From a host to its addresses. Raises ``OSError`` where there are none."""


@dataclass(frozen=True)
class SafeTarget:
    """A URL, and the addresses of its host, all of which were checked."""

    url: httpx2.URL
    host: str
    addresses: tuple[str, ...]


@dataclass(frozen=True)
class SafeTargets:
    """Checks and calls URLs; ``hosts`` and ``networks`` are those that the operator allows beyond public ones."""

    hosts: frozenset[str]
    networks: tuple[Network, ...]
    resolve: Resolve
    verify: ssl.SSLContext | bool = True
    resolving: dict["asyncio.Future[Sequence[str]]", TenantId | None] = field(default_factory=dict)
    """Every look-up whose thread is not over, even where nobody waits for it any more."""

    @cached_property
    def transport(self) -> httpx2.AsyncBaseTransport:
        """The connections, opened at the first call: to load all certificates takes 30 ms, which few servers need.

        None is kept: it could serve another tenant's host at the same address, verified for this one's.
        """
        limits = httpx2.Limits(max_keepalive_connections=0)
        return httpx2.AsyncHTTPTransport(verify=self.verify, limits=limits, trust_env=False)

    async def check(self, text: str, *, tenant_id: TenantId | None = None) -> SafeTarget:
        """The target that a URL names. Raises ``WebhookTargetException`` where it must not, or cannot, be called.

        That a name does not exist and that it is not public are one answer: names of the operator's own network
        cannot be told from others. So is that look-ups of the tenant hang, which later ones wait for.
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
        return SafeTarget(url=url, host=host, addresses=addresses[:ADDRESSES_TRIED])

    async def post(self, target: SafeTarget, *, headers: Mapping[str, str], content: bytes) -> int:
        """The status of the answer; nothing of its body is read.

        Raises ``httpx2.TransportError``, which covers the certificate. The caller limits the time.
        """
        response = await self._send("POST", target, headers, content)
        await response.aclose()
        return response.status_code

    async def get(self, target: SafeTarget, *, headers: Mapping[str, str]) -> httpx2.Response:
        """The answer, whose body is still to be read; the caller closes it.

        Raises as ``post`` does. The caller limits the time.
        """
        return await self._send("GET", target, headers, b"")

    async def close(self) -> None:
        """Close every connection, and forget look-ups that hang."""
        for each in list(self.resolving):
            each.cancel()
        if "transport" in vars(self):
            await self.transport.aclose()

    async def _look_up(self, host: str, tenant_id: TenantId | None) -> Sequence[str]:
        """The addresses of a host, asked for once the tenant has a thread left."""
        most = RESOLVING_AT_ONCE_FOR_NO_TENANT if tenant_id is None else RESOLVING_AT_ONCE_PER_TENANT
        while len(own := [each for each, owner in self.resolving.items() if owner == tenant_id]) >= most:
            await asyncio.wait(own, return_when=asyncio.FIRST_COMPLETED)
        look_up = asyncio.ensure_future(self.resolve(host))
        self.resolving[look_up] = tenant_id
        look_up.add_done_callback(self._looked_up)
        # Who waits gives up before its thread does.
        return await asyncio.shield(look_up)

    def _looked_up(self, look_up: "asyncio.Future[Sequence[str]]") -> None:
        del self.resolving[look_up]
        if not look_up.cancelled():
            # Its exception counts as seen even if nobody waits for it any more.
            look_up.exception()

    async def _send(
        self, method: str, target: SafeTarget, headers: Mapping[str, str], content: bytes
    ) -> httpx2.Response:
        """Send a request to the first of the target's addresses that takes the connection."""
        *others, last = target.addresses
        for address in others:
            try:
                return await self._send_to(address, method, target, headers, content)
            except (httpx2.ConnectError, httpx2.ConnectTimeout):
                continue
        return await self._send_to(last, method, target, headers, content)

    async def _send_to(
        self, address: str, method: str, target: SafeTarget, headers: Mapping[str, str], content: bytes
    ) -> httpx2.Response:
        request = httpx2.Request(
            method,
            target.url.copy_with(host=address),
            headers={"Host": target.url.netloc.decode("ascii"), "Connection": "close", **headers},
            content=content,
            # The name to send and to verify, since the URL has none any more.
            extensions={"sni_hostname": target.host, "timeout": httpx2.Timeout(CONNECT_SECONDS, read=None).as_dict()},
        )
        return await self.transport.handle_async_request(request)

    def _is_permitted(self, address: str) -> bool:
        return is_public(ip_address(address)) or self._is_in_allowed_network(address)

    def _is_in_allowed_network(self, address: str) -> bool:
        return any(ip_address(address) in network for network in self.networks)


def open_safe_targets(allowed: Sequence[str], *, verify: ssl.SSLContext | bool = True) -> SafeTargets:
    """Targets on public addresses, and on the hosts and networks (CIDR) that are allowed beside them."""
    networks = {name: network for name in allowed if (network := _as_network(name)) is not None}
    return SafeTargets(
        hosts=frozenset(name.lower().rstrip(".") for name in allowed if name not in networks),
        networks=tuple(networks.values()),
        resolve=partial(resolve_host, threads=ThreadPoolExecutor(RESOLVING_AT_ONCE)),
        verify=verify,
    )


async def resolve_host(host: str, *, threads: Executor) -> list[str]:
    """The addresses of a host, best first, as the operating system finds them. Raises ``OSError``."""
    look_up = partial(socket.getaddrinfo, host, None, type=socket.SOCK_STREAM)
    found = await asyncio.get_running_loop().run_in_executor(threads, look_up)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


def is_public(address: Address) -> bool:
    """Whether an address is out on the Internet, whatever other address is written into it."""
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return is_public(address.ipv4_mapped)
        if address in NAT64:
            return is_public(IPv4Address(address.packed[-4:]))
        if address not in GLOBAL_UNICAST or (address.sixtofour is not None and not is_public(address.sixtofour)):
            return False
    return address.is_global and not address.is_multicast and not any(address in network for network in ELSEWHERE)


def _parse(text: str) -> tuple[httpx2.URL, str]:
    """The URL and its host in lower case without a last dot. Raises ``WebhookTargetException``."""
    if re.fullmatch(r"[\x21-\x5b\x5d-\x7e]+", text) is None:
        raise WebhookTargetException(message="The URL must be ASCII, without spaces, backslashes or controls.")
    try:
        url = httpx2.URL(text)
    except httpx2.InvalidURL as error:
        raise WebhookTargetException(message="The URL cannot be read.") from error
    if url.scheme not in {"http", "https"} or not url.host or (url.port is not None and url.port not in PORTS):
        raise WebhookTargetException(message="The URL must begin with https:// and a host.")
    if "@" in text.split("//", 1)[1].split("/", 1)[0] or url.userinfo:
        raise WebhookTargetException(message="The URL must not hold a user name or password.")
    return url, _host_of(url)


def _host_of(url: httpx2.URL) -> str:
    host = url.host.lower().removesuffix(".")
    if url.netloc.startswith(b"["):
        # In an address with a zone the host would be one thing to us and another to the operating system.
        valid = re.fullmatch(r"[0-9a-f:.]+", host) is not None
    elif NUMERIC_LABEL.fullmatch(host.rpartition(".")[2]):
        valid = _is_ipv4(host)
    else:
        valid = DNS_NAME.fullmatch(host) is not None
    if not valid:
        raise WebhookTargetException(message="The URL's host is neither a name nor an address in its usual form.")
    return host


def _is_ipv4(host: str) -> bool:
    """Whether a host is four decimal numbers without leading zeros."""
    try:
        return bool(IPv4Address(host))
    except ValueError:
        return False


def _as_network(name: str) -> Network | None:
    try:
        return ip_network(name, strict=False)
    except ValueError:
        return None
