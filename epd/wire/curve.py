"""The cluster's CURVE keys: one pair for all members, each proves to each that it has the secret.

Servers show the cluster's public key, clients are accepted only with that same key (`admits`). So a
stranger can neither connect nor listen in, and rotating the keys means replacing one folder.
"""

from __future__ import annotations

import hmac
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import zmq
from zmq.utils import z85

from epd.errors import ConfigError

PUBLIC_FILE: Final = "cluster.public"
SECRET_FILE: Final = "cluster.secret"
DOMAIN: Final = b"epd"
ZAP_ADDRESS: Final = "inproc://zeromq.zap.01"

_KEY_BYTES = 40  # Z85


@dataclass(frozen=True, slots=True)
class Keys:
    """The cluster's pair, as Z85 text."""

    public: bytes
    secret: bytes = field(repr=False)

    def serve(self, socket: zmq.Socket[bytes]) -> None:
        """Before bind: only members may connect. Needs a running answer_zap on the context."""
        socket.curve_server = True
        socket.curve_secretkey = self.secret
        socket.curve_publickey = self.public
        socket.zap_domain = DOMAIN

    def join(self, socket: zmq.Socket[bytes]) -> None:
        """Before connect: talk to members only."""
        socket.curve_serverkey = self.public
        socket.curve_secretkey = self.secret
        socket.curve_publickey = self.public

    def admits(self, client_key: bytes) -> bool:
        """Whether a client that proved to own this key (32 raw bytes) is a member."""
        return hmac.compare_digest(client_key, z85.decode(self.public))


def generate(folder: Path | str) -> Keys:
    """Make a new pair in a 0700 folder; files 0600. ConfigError if there is one already."""
    folder = Path(folder)
    public, secret = zmq.curve_keypair()
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name, key in ((SECRET_FILE, secret), (PUBLIC_FILE, public)):
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
            with os.fdopen(os.open(folder / name, flags, 0o600), "wb") as file:
                file.write(key + b"\n")
    except FileExistsError:
        raise ConfigError(f"{folder} has keys already; they are never overwritten") from None
    except OSError as error:
        raise ConfigError(f"cannot write keys to {folder}: {error}") from None
    return Keys(public, secret)


def load(folder: Path | str) -> Keys:
    """Read the pair. ConfigError if it is missing, damaged, or readable by others."""
    folder = Path(folder)
    public, secret = _read(folder / PUBLIC_FILE), _read(folder / SECRET_FILE, private=True)
    if not _is_pair(public, secret):
        raise ConfigError(f"{folder} has no valid pair of CURVE keys")
    return Keys(public, secret)


def _is_pair(public: bytes, secret: bytes) -> bool:
    if len(secret) != _KEY_BYTES:
        return False
    try:
        return hmac.compare_digest(zmq.curve_public(secret), public)
    except (zmq.ZMQError, ValueError):
        return False


def _read(path: Path, *, private: bool = False) -> bytes:
    try:
        if private and stat.S_IMODE(path.stat().st_mode) & 0o077:
            raise ConfigError(f"{path} can be read by others; its mode must be 0600")
        return path.read_bytes().strip()
    except OSError as error:
        raise ConfigError(f"cannot read a CURVE key: {error}") from None


def answer_zap(socket: zmq.Socket[bytes], keys: Keys) -> bool:
    """Answer one authentication request on the context's ZAP socket; whether it was a member."""
    version, request_id, _domain, _address, _identity, mechanism, *credentials = (
        socket.recv_multipart(zmq.NOBLOCK)
    )
    member = mechanism == b"CURVE" and len(credentials) == 1 and keys.admits(credentials[0])
    status = (b"200", b"OK") if member else (b"400", b"not a member")
    socket.send_multipart([version, request_id, *status, b"", b""], zmq.NOBLOCK)
    return member
