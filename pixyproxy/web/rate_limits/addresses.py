"""Addresses of clients as limits count them."""

import functools
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from starlette.requests import Request

IPV6_PREFIX = 64
"""What one customer of a provider has at the least (RFC 6177): a limit by single addresses would be none."""
UNKNOWN_ADDRESS = "unknown"


@functools.lru_cache(maxsize=4096)
def network_of(host: str) -> str:
    """Return an IPv4 address as it is, and the /64 of an IPv6 one.

    What is no address (a proxy may write ``unknown``) is one and the same client.
    """
    address = parse_address(host)
    if address is None:
        return UNKNOWN_ADDRESS
    return str(ip_network((address, IPV6_PREFIX), strict=False)) if isinstance(address, IPv6Address) else str(address)


def parse_address(host: str) -> IPv4Address | IPv6Address | None:
    """Return the address in a text without its zone, an IPv6-mapped one as IPv4; None for any other text."""
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return None
    return address.ipv4_mapped or address if isinstance(address, IPv6Address) else address


def client_address(request: Request) -> str:
    """Whom limits by address hold for: an IPv4 address, or the /64 of an IPv6 one.

    From the connection alone, or what the server took for it from a proxy that it trusts. What is no address
    (a proxy may write ``unknown``) is one and the same client.
    """
    return network_of(request.client.host if request.client else "")
