"""What may be listened on and connected to."""

from __future__ import annotations

from pathlib import Path

import pytest

from epd.errors import ConfigError, ProtocolError
from epd.wire.addresses import (
    ipc_endpoint,
    is_name,
    leaves_host,
    parse_listen,
    resolve,
    tcp_endpoint,
)


@pytest.mark.parametrize(
    ("listen", "place", "ports"),
    [
        ("tcp://127.0.0.1", "127.0.0.1", ()),
        ("tcp://127.0.0.1:5000", "127.0.0.1", (5000, 5001)),
        ("tcp://127.0.0.1:5000-5003", "127.0.0.1", (5000, 5001, 5002, 5003)),
        ("tcp://[::1]:5000", "::1", (5000, 5001)),
        ("ipc:///run/epd", "/run/epd", ()),
    ],
)
def test_places_to_listen(listen: str, place: str, ports: tuple[int, ...]) -> None:
    found = parse_listen(listen)
    assert (found.place, found.ports, found.leaves_host) == (place, ports, False)


@pytest.mark.parametrize(
    "listen",
    [
        "",
        "127.0.0.1",
        "tcp://",
        "udp://127.0.0.1",
        "tcp://127.0.0.1:x",
        "tcp://127.0.0.1:0",
        "tcp://127.0.0.1:65535",
        "tcp://127.0.0.1:10-5",
        "tcp://0.0.0.0",
        "tcp://[::]:5000",
        "tcp://*:5000",
    ],
)
def test_a_place_that_peers_cannot_use_is_a_configuration_error(listen: str) -> None:
    with pytest.raises(ConfigError, match="listen"):
        parse_listen(listen)


@pytest.mark.parametrize(
    ("address", "leaves"),
    [
        ("ipc:///run/epd/a.c", False),
        ("tcp://127.0.0.1:5000", False),
        ("tcp://127.8.8.8:5000", False),
        ("tcp://[::1]:5000", False),
        ("tcp://localhost:5000", False),
        ("tcp://10.0.0.1:5000", True),
        ("tcp://gateway.example:5000", True),
        ("tcp://127.0.0.1.example:5000", True),
        ("tcp://[2001:db8::1]:5000", True),
    ],
)
def test_which_addresses_leave_this_machine(address: str, *, leaves: bool) -> None:
    assert leaves_host(address) is leaves


def test_what_is_no_address_is_refused() -> None:
    for address in ("", "ipc://", "tcp://host", "tcp://:5", "tcp://host:*", "inproc://x"):
        with pytest.raises(ProtocolError, match="address"):
            leaves_host(address)


def test_socket_folders_are_short_and_ours_alone(short_folder: Path) -> None:
    assert ipc_endpoint(str(short_folder / "s"), "a.c") == f"ipc://{short_folder}/s/a.c"
    assert (short_folder / "s").stat().st_mode & 0o777 == 0o700
    with pytest.raises(ConfigError, match="107"):
        ipc_endpoint(str(short_folder / ("x" * 100)), "a.c")
    (short_folder / "s").chmod(0o755)
    with pytest.raises(ConfigError, match="0700"):
        ipc_endpoint(str(short_folder / "s"), "a.c")
    with pytest.raises(ConfigError, match="folder"):
        ipc_endpoint(str(short_folder / "no" / "such"), "a.c")


def test_endpoints_are_written_as_zeromq_reads_them() -> None:
    assert tcp_endpoint("10.0.0.1", 5) == "tcp://10.0.0.1:5"
    assert tcp_endpoint("::1", "*") == "tcp://[::1]:*"


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("tcp://gateways.example:7400", True),
        ("tcp://localhost:7400", True),
        ("tcp://10.0.0.1:7400", False),
        ("tcp://[2001:db8::1]:7400", False),
        ("ipc:///run/epd/gateway-0.c", False),
    ],
)
def test_which_addresses_have_to_be_looked_up(address: str, *, name: bool) -> None:
    assert is_name(address) is name


def test_a_name_stands_for_all_of_its_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each once, with the port, in an order that does not change from one answer to the next."""
    hosts = ["10.0.0.2", "10.0.0.1", "2001:db8::1", "10.0.0.2"]

    def found(host: str, port: object, **_: object) -> list[tuple[object, ...]]:
        assert (host, port) == ("gateways.example", None)
        return [(None, None, None, "", (one, 0)) for one in hosts]

    monkeypatch.setattr("socket.getaddrinfo", found)
    expected = ("tcp://10.0.0.1:7400", "tcp://10.0.0.2:7400", "tcp://[2001:db8::1]:7400")
    assert resolve("tcp://gateways.example:7400") == expected
    hosts.reverse()
    assert resolve("tcp://gateways.example:7400") == expected
