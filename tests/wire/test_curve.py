"""Keys on disk, and who they let in."""

from __future__ import annotations

from pathlib import Path

import pytest
import zmq

from epd.errors import ConfigError
from epd.wire import curve
from epd.wire.links import PeerLost
from tests.wire.conftest import CANCEL, Net, eventually


def test_generated_keys_are_read_back_and_private(tmp_path: Path) -> None:
    made = curve.generate(tmp_path / "keys")
    assert curve.load(tmp_path / "keys") == made
    assert (tmp_path / "keys").stat().st_mode & 0o777 == 0o700
    for file in (tmp_path / "keys").iterdir():
        assert file.stat().st_mode & 0o777 == 0o600
    assert made.secret.decode() not in repr(made)


def test_keys_are_never_overwritten(tmp_path: Path) -> None:
    made = curve.generate(tmp_path)
    with pytest.raises(ConfigError, match="already"):
        curve.generate(tmp_path)
    assert curve.load(tmp_path) == made


def test_a_folder_without_usable_keys_is_a_configuration_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cluster\.public"):
        curve.load(tmp_path)
    curve.generate(tmp_path)
    (tmp_path / curve.SECRET_FILE).chmod(0o644)
    with pytest.raises(ConfigError, match="0600"):
        curve.load(tmp_path)
    (tmp_path / curve.SECRET_FILE).chmod(0o600)
    for file in (curve.PUBLIC_FILE, curve.SECRET_FILE):
        for damaged in (b"", b"short", b"x" * 40, b"'" * 40, b"\xff" * 40):
            (tmp_path / file).write_bytes(damaged)
            with pytest.raises(ConfigError, match="pair of CURVE keys"):
                curve.load(tmp_path)


def test_members_of_one_cluster_talk_encrypted(zmq_net: Net, tmp_path: Path) -> None:
    curve.generate(tmp_path)
    a, b = (zmq_net.node(name, curve_dir=tmp_path) for name in "ab")
    a.knows(b)
    b.knows(a)
    assert a.links.send("b", CANCEL) and b.links.send("a", CANCEL)
    assert a.next().message == b.next().message == CANCEL


@pytest.fixture
def tcp(short_folder: Path) -> Net:
    return Net("tcp", short_folder)


def test_members_of_another_cluster_deliver_nothing(tcp: Net, tmp_path: Path) -> None:
    curve.generate(tmp_path / "ours")
    curve.generate(tmp_path / "theirs")
    ours = tcp.node("ours", curve_dir=tmp_path / "ours")
    theirs = tcp.node("theirs", curve_dir=tmp_path / "theirs").knows(ours)
    ours.knows(theirs)
    assert theirs.links.send("ours", CANCEL)
    theirs.links.close()
    assert ours.nothing() and theirs.links.counters()["sent"] == 0
    tcp.close()


def test_who_has_only_the_public_key_is_no_member(tcp: Net, tmp_path: Path) -> None:
    """The right server key, but a client key pair of its own: the ZAP answer is no."""
    ours = tcp.node("ours", curve_dir=_keys(tmp_path / "ours"))
    forged = curve.load(_keys(tmp_path / "forged"))
    spy = tcp.context.socket(zmq.DEALER)
    spy.curve_serverkey = curve.load(tmp_path / "ours").public
    spy.curve_publickey, spy.curve_secretkey = forged.public, forged.secret
    spy.connect(ours.links.control)
    eventually(lambda: ours.dropped("stranger") == 1)
    spy.close(linger=0)
    tcp.close()


def test_a_dead_member_is_seen_with_keys_too(tcp: Net, tmp_path: Path) -> None:
    a, b = (tcp.node(name, curve_dir=_keys(tmp_path / "k")) for name in "ab")
    a.knows(b)
    b.knows(a)
    assert a.links.send("b", CANCEL)
    b.next()
    b.links.close()
    assert isinstance(a.next(), PeerLost)
    tcp.close()


def _keys(folder: Path) -> Path:
    if not folder.exists():
        curve.generate(folder)
    return folder
