"""Which addresses media may be fetched from.

Private and loopback networks are refused unless the operator allows them. Metadata services,
multicast, unspecified and reserved addresses are refused always: no picture lives there.
"""

from __future__ import annotations

from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)

Address = IPv4Address | IPv6Address

_METADATA: tuple[IPv4Network | IPv6Network, ...] = (
    ip_network("169.254.0.0/16"),
    ip_network("fe80::/10"),
    ip_network("fd00:ec2::/32"),
    ip_network("100.100.100.200/32"),
    ip_network("168.63.129.16/32"),  # looks public, but is a cloud's host agent
    ip_network("192.0.0.192/32"),
)
_NAT64 = (ip_network("64:ff9b::/96"), ip_network("64:ff9b:1::/48"))
_THIS_NETWORK = ip_network("0.0.0.0/8")  # reaches the host itself on Linux


def allowed(address: str, *, private: bool) -> bool:
    """Whether this numeric address may be connected to; `private` is the operator's leave."""
    try:
        ip = _unwrap(ip_address(address))
    except ValueError:
        return False
    if ip.is_multicast or ip.is_unspecified or any(ip in net for net in _METADATA):
        return False
    if ip in _THIS_NETWORK or (ip.is_reserved and not ip.is_loopback):
        return False
    return private or _public(ip)


def _public(ip: Address) -> bool:
    site_local = isinstance(ip, IPv6Address) and ip.is_site_local
    return ip.is_global and not (ip.is_private or ip.is_loopback or ip.is_link_local or site_local)


def _unwrap(ip: Address) -> Address:
    """The IPv4 address that an IPv6 one leads to, where it is only a wrapping."""
    if isinstance(ip, IPv4Address):
        return ip
    if ip.ipv4_mapped is not None:
        return ip.ipv4_mapped
    if ip.sixtofour is not None:
        return ip.sixtofour
    if any(ip in net for net in _NAT64):
        return IPv4Address(int(ip) & 0xFFFFFFFF)
    return ip
