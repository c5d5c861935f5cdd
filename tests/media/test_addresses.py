"""Which numbers may be connected to."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epd.media.addresses import allowed

PUBLIC = ["8.8.8.8", "1.1.1.1", "2606:4700:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"]
PRIVATE = [
    "127.0.0.1",
    "127.255.255.254",
    "10.0.0.1",
    "172.16.0.1",
    "172.31.255.255",
    "192.168.1.1",
    "100.64.0.1",
    "::1",
    "fc00::1",
    "fec0::1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "2002:7f00:1::",
    "2002:a00:1::",
    "64:ff9b::a00:1",
    "198.18.0.1",
]
NEVER = [
    "0.0.0.0",
    "0.1.2.3",
    "::",
    "169.254.169.254",
    "::ffff:169.254.169.254",
    "64:ff9b::a9fe:a9fe",
    "2002:a9fe:a9fe::",
    "fe80::1",
    "fe80::1%eth0",
    "fd00:ec2::254",
    "100.100.100.200",
    "168.63.129.16",
    "192.0.0.192",
    "224.0.0.1",
    "239.1.1.1",
    "ff02::1",
    "255.255.255.255",
    "240.0.0.1",
    "::7f00:1",
    "localhost",
    "",
]


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_are_allowed(address: str) -> None:
    """With and without the operator's leave for private ones."""
    assert allowed(address, private=False)
    assert allowed(address, private=True)


@pytest.mark.parametrize("address", PRIVATE)
def test_private_addresses_need_the_operators_leave(address: str) -> None:
    """However they are wrapped."""
    assert not allowed(address, private=False)
    assert allowed(address, private=True)


@pytest.mark.parametrize("address", NEVER)
def test_metadata_multicast_and_reserved_addresses_are_never_allowed(address: str) -> None:
    """No picture lives there."""
    assert not allowed(address, private=False)
    assert not allowed(address, private=True)


@given(st.ip_addresses())
def test_what_is_not_global_is_refused(address: object) -> None:
    """The library's own judgement, plus ours; and leave never takes anything away."""
    ip = str(address)
    if not address.is_global:  # type: ignore[attr-defined]
        assert ip.startswith("::ffff:") or not allowed(ip, private=False)
    if allowed(ip, private=False):
        assert allowed(ip, private=True)
