"""Addresses that sockets bind to and connect to, and which of them leave this machine."""

from __future__ import annotations

import ipaddress
import os
import socket
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from epd.errors import ConfigError, ProtocolError

IPC_PATH_LIMIT: Final = 107  # bytes of a unix socket's path


@dataclass(frozen=True, slots=True)
class Listen:
    """Where a node binds. `ports` empty: the system picks; unused for ipc."""

    transport: str
    place: str
    ports: tuple[int, ...] = ()

    @property
    def leaves_host(self) -> bool:
        """Whether others than this machine can reach it."""
        return self.transport == "tcp" and not _is_loopback(self.place)


def parse_listen(listen: str) -> Listen:
    """Read "tcp://HOST", "tcp://HOST:PORT", "tcp://HOST:FIRST-LAST" or "ipc://DIR".

    One PORT stands for itself (control) and the next (bulk). A host's name is resolved here.
    """
    transport, separator, rest = listen.partition("://")
    if not separator or transport not in ("tcp", "ipc") or not rest:
        raise ConfigError(f"listen is {listen!r}; it takes tcp://HOST[:PORT[-LAST]] or ipc://DIR")
    if transport == "ipc":
        return Listen("ipc", rest)
    host, port = _split_port(rest)
    return Listen("tcp", _resolve(host, listen), _ports(port, listen))


def _split_port(rest: str) -> tuple[str, str]:
    if rest.startswith("["):
        host, _, port = rest[1:].partition("]")
        return host, port.removeprefix(":")
    host, _, port = rest.partition(":")
    return host, port


def _resolve(host: str, listen: str) -> str:
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError as error:
        raise ConfigError(f"listen is {listen!r}: {error.strerror or error}") from None
    address = str(found[0][4][0])
    if ipaddress.ip_address(address).is_unspecified:
        raise ConfigError(f"listen is {listen!r}; name an address that peers can connect to")
    return address


def _ports(text: str, listen: str) -> tuple[int, ...]:
    if not text:
        return ()
    first, _, last = text.partition("-")
    try:
        low = int(first)
        high = int(last) if last else low + 1
    except ValueError:
        raise ConfigError(f"listen is {listen!r}; {text!r} is no port and no range") from None
    if not 0 < low < high <= 65535:
        raise ConfigError(f"listen is {listen!r}; it takes two ports from 1 to 65535")
    return tuple(range(low, high + 1))


def tcp_endpoint(host: str, port: int | str) -> str:
    """As ZeroMQ writes it."""
    return f"tcp://[{host}]:{port}" if ":" in host else f"tcp://{host}:{port}"


def ipc_endpoint(folder: str, file_name: str) -> str:
    """An address inside a 0700 folder, which is made if need be."""
    path = Path(folder) / file_name
    length = len(os.fsencode(path))
    if length > IPC_PATH_LIMIT:
        raise ConfigError(f"{path} has {length} bytes; a socket's path takes {IPC_PATH_LIMIT}")
    try:
        path.parent.mkdir(mode=0o700, exist_ok=True)
        found = path.parent.stat()
    except OSError as error:
        raise ConfigError(f"cannot make the socket folder {folder}: {error}") from None
    if found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o077:
        raise ConfigError(f"the socket folder {folder} must be ours alone (mode 0700)")
    return f"ipc://{path}"


def is_listening(path: Path) -> bool:
    """Whether a living process has bound this unix socket; a killed one's file is only a file."""
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(os.fsencode(path))
        except OSError:
            return False
    return True


def leaves_host(address: str) -> bool:
    """Whether connecting to `address` leaves this machine. ProtocolError if it is no address."""
    transport, _, rest = address.partition("://")
    if transport == "ipc" and rest:
        return False
    host, port = _split_port(rest)
    if transport != "tcp" or not host or not port.isdecimal():
        raise ProtocolError("address", "neither tcp://HOST:PORT nor ipc://PATH")
    return not _is_loopback(host)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def is_name(address: str) -> bool:
    """Whether it has a host's name, which may stand for several addresses and for others soon."""
    transport, _, rest = address.partition("://")
    if transport != "tcp":
        return False
    try:
        ipaddress.ip_address(_split_port(rest)[0])
    except ValueError:
        return True
    return False


def resolve(address: str) -> tuple[str, ...]:
    """All addresses behind a name, in a fixed order. OSError where there is no answer now."""
    host, port = _split_port(address.partition("://")[2])
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return tuple(tcp_endpoint(place, port) for place in sorted({str(f[4][0]) for f in found}))
