"""Client addresses as owners of limits."""

import functools
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from starlette.requests import Request

IPV6_PREFIX = 64
"""The smallest allocation of a provider's customer (RFC 6177): limits on single addresses would be useless."""
UNKNOWN_ADDRESS = "unknown"


@functools.lru_cache(maxsize=4096)
def network_of(host: str) -> str:
    """Return an IPv4 address unchanged, or the /64 of an IPv6 address.

    All invalid addresses (a proxy may send ``unknown``) count as one client.
    """
    address = parse_address(host)
    if address is None:
        return UNKNOWN_ADDRESS
    return str(ip_network((address, IPV6_PREFIX), strict=False)) if isinstance(address, IPv6Address) else str(address)


def parse_address(host: str) -> IPv4Address | IPv6Address | None:
    """Return the address in a text, without zone, an IPv4-mapped IPv6 address as IPv4; None if invalid."""
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return None
    return address.ipv4_mapped or address if isinstance(address, IPv6Address) else address


def client_address(request: Request) -> str:
    """Return the owner of address limits: an IPv4 address, or the /64 of an IPv6 address.

    It comes only from the connection, or from a trusted proxy through the server. All invalid addresses (a proxy may
    send ``unknown``) count as one client.
    """
    return network_of(request.client.host if request.client else "")
