"""The holes that servers of this kind have had on their sockets, each tried here."""

from __future__ import annotations

import ast
import os
import pickle
from pathlib import Path

import msgpack
import pytest

import epd
from epd.config.sections import WireConfig
from epd.errors import ConfigError, ProtocolError
from epd.wire import curve
from epd.wire.codec import decode, encode
from epd.wire.inbox import Inbox
from epd.wire.messages import REGISTRY, Register
from epd.wire.zmq_links import ZmqLinks
from tests.wire.conftest import CANCEL, Net, eventually

# Modules that turn bytes into objects or code, and functions that do so by their last name.
UNPICKLERS = {"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "marshal", "shelve", "joblib"}
CALLS = {"eval", "exec", "recv_pyobj", "send_pyobj", "recv_serialized", "unsafe_load", "full_load"}
QUALIFIED = {"torch.load", "numpy.load", "np.load", "pandas.read_pickle"}
LOADERS = {f"yaml.{c}{kind}Loader" for c in ("", "C") for kind in ("", "Full", "Unsafe")}


class Bomb:
    """Its unpickling would make a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


def test_class_1_there_is_no_unpickler_in_the_package() -> None:
    package = Path(str(epd.__file__)).parent
    found = [
        f"{path.relative_to(package)}:{line} {what}"
        for path in sorted(package.rglob("*.py"))
        for line, what in _dangerous(ast.parse(path.read_text()))
    ]
    assert not found


def _dangerous(tree: ast.AST) -> list[tuple[int, str]]:
    found: list[tuple[int, str]] = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.expr | ast.stmt):
            continue
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or "", *(alias.name for alias in node.names)]
        elif isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            last = called.rpartition(".")[2]
            # `model.eval()` sets a mode; only the builtin runs text.
            method = last in {"eval", "exec"} and called != last
            if called in QUALIFIED or (last in CALLS and not method):
                found.append((node.lineno, called))
        elif isinstance(node, ast.Attribute) and ast.unparse(node) in LOADERS:
            found.append((node.lineno, ast.unparse(node)))
        found += [(node.lineno, name) for name in names if name.split(".")[0] in UNPICKLERS]
    return found


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from pickle import loads",
        "torch.load(x)",
        "s.recv_pyobj()",
        "yaml.load(x, Loader=yaml.UnsafeLoader)",
    ],
)
def test_class_1_the_scan_sees_what_it_looks_for(source: str) -> None:
    assert _dangerous(ast.parse(source))


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_class_1_a_pickle_on_the_wire_is_dropped_and_counted(
    net: Net, tmp_path: Path, protocol: int
) -> None:
    target = tmp_path / "made"
    data = pickle.dumps(Bomb(target), protocol=protocol)
    a, b = net.node("a"), net.node("b")
    b.knows(a)
    net.raw(b.links.control, a.identity, (data,))
    net.raw(b.links.bulk, a.identity, (data, data))
    eventually(lambda: b.dropped("malformed") == 2)
    assert not target.exists() and b.nothing()


@pytest.mark.parametrize("code", [-1, 0, 1, 5, 42, 127])
def test_class_2_no_extension_type_is_ever_built(code: int, tmp_path: Path) -> None:
    target = tmp_path / "made"
    data = pickle.dumps(Bomb(target))
    header = b"\xc7\x08\xff" + bytes(8) if code < 0 else msgpack.packb(msgpack.ExtType(code, data))
    for bytes_on_the_wire in (
        header,
        b"\x94\x01\xa6tokens\xa1x" + header,
        b"\x94\x01\xa6tokens\xa1x\x91" + header,
    ):
        with pytest.raises(ProtocolError) as caught:
            decode(bytes_on_the_wire)
        assert caught.value.reason == "malformed"
    assert not target.exists()


def test_class_2_only_the_fixed_set_of_messages_is_known() -> None:
    """A tag is looked up, never imported or resolved."""
    for tag in ("os.system", "epd.wire.messages.Tokens", "Tokens", "__class__", "builtins.eval"):
        assert tag not in REGISTRY
        with pytest.raises(ProtocolError) as caught:
            decode(msgpack.packb((1, tag, "x", ("echo",))))
        assert caught.value.reason == "tag"


@pytest.mark.parametrize("listen", ["tcp://192.0.2.1", "tcp://8.8.8.8:5000", "tcp://[2001:db8::1]"])
def test_class_3_off_loopback_needs_keys_or_an_explicit_word(listen: str) -> None:
    with pytest.raises(ConfigError, match="insecure"):
        ZmqLinks("a", listen, WireConfig(), Inbox())


def test_class_3_a_node_connects_off_loopback_only_with_keys(short_folder: Path) -> None:
    net = Net("ipc", short_folder)
    a = net.node("a")
    with pytest.raises(ConfigError, match="insecure"):
        a.links.connect_unknown("tcp://192.0.2.1:5000")
    net.close()


def test_class_3_loopback_is_the_default_and_not_every_interface(short_folder: Path) -> None:
    net = Net("tcp", short_folder)
    node = net.node("a")
    assert node.links.control.startswith("tcp://127.0.0.1:")
    assert node.links.bulk.startswith("tcp://127.0.0.1:")
    net.close()


def test_class_3_with_keys_a_stranger_delivers_nothing(short_folder: Path, tmp_path: Path) -> None:
    """Not even a Register, which is open to strangers where no keys are needed."""
    curve.generate(tmp_path)
    net = Net("tcp", short_folder)
    ours = net.node("ours", curve_dir=tmp_path)
    member = net.node("member", curve_dir=tmp_path).knows(ours)
    stranger = net.node("stranger").knows(ours)
    ours.knows(member, stranger)
    registration = Register(member=stranger.member, fingerprint={}, via="")
    assert stranger.links.send("ours", registration) and stranger.links.send("ours", CANCEL)
    assert member.links.send("ours", CANCEL)
    came = ours.next()
    assert came.sender == "member"
    stranger.links.close()
    assert stranger.links.counters()["sent"] == 0
    assert ours.nothing()
    net.close()


def test_class_4_no_malformed_message_stops_the_control_loop(net: Net) -> None:
    """Dozens of broken messages of a known peer, on both channels; then a good one arrives."""
    a, b, c = net.node("a"), net.node("b", capacity=4), net.node("c")
    b.knows(a, c)
    c.knows(b)
    good = encode(CANCEL, to=b.links.incarnation)
    broken: list[tuple[bytes, ...]] = [
        *((good[:end],) for end in range(0, len(good), 3)),
        *((good[:at] + b"\xc1" + good[at + 1 :],) for at in range(5)),
        (good, b"a frame that was not promised"),
        (good, b"", b""),
        (b"\x91" * 5000,),
        (b"\xdd\xff\xff\xff\xff" * 100,),
        (msgpack.packb((1, "tokens", b.links.incarnation, [[["r"]]])),),
        (msgpack.packb((1, "request.cancel", b.links.incarnation, [["r", 2**63]], "more")),),
        (os.urandom(1000),),
    ]
    net.raw(b.links.control, a.identity, *broken)
    net.raw(b.links.bulk, a.identity, *broken)
    eventually(lambda: _num_dropped(b.links.counters()) == 2 * len(broken))
    assert c.links.send("b", CANCEL)
    assert b.next().sender == "c"
    assert b.nothing()


def _num_dropped(counters: dict[str, int]) -> int:
    return sum(count for name, count in counters.items() if name.startswith("dropped"))
