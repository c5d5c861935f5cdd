"""Memory of another host, read over the network: whole, in any order, never what was put there for
somebody else."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from epd.errors import EpdError, ProtocolError, Unavailable
from epd.transfer.incoming import Incoming
from epd.transfer.nixl import RemoteReader
from epd.transfer.outgoing import Outgoing
from epd.transfer.ways import FRAMES, NIXL, route
from epd.types import Member, Remote
from epd.wire.messages import Payload
from tests.transfer.ends import member, staged
from tests.transfer.network import FakeAgent, Network

ARENA = 1 << 14
BLOCK = 1 << 11


class Hosts:
    """A sender here, a receiver there."""

    def __init__(self) -> None:
        self.network = Network()
        self.outgoing = Outgoing(arena_bytes=ARENA, agent=FakeAgent(self.network))
        self.reader = RemoteReader(FakeAgent(self.network), BLOCK)
        self.incoming = Incoming(reader=self.reader)
        self.member = dataclasses.replace(
            member(self.outgoing.segment), remote=self.outgoing.remote
        )

    def send(self, tensor: torch.Tensor) -> Payload:
        sent = staged(self.outgoing.stage(tensor, to="p", route=NIXL))
        assert sent.frame is None and sent.payload.remote
        return sent.payload

    def bring(self, payload: Payload) -> None:
        while not self.incoming.arrived(self.member, payload):
            self.network.run_all()

    def close(self) -> None:
        self.incoming.close()
        self.outgoing.close()


@pytest.fixture
def hosts() -> Iterator[Hosts]:
    made = Hosts()
    yield made
    made.close()


@pytest.mark.parametrize("kept", [False, True], ids=["copied", "kept"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_tensor_arrives_equal_and_its_slot_is_given_back(
    hosts: Hosts, dtype: torch.dtype, *, kept: bool
) -> None:
    rows = torch.randn(5, 7).to(dtype)
    tensor = hosts.outgoing.keep(rows) if kept else rows
    payload = hosts.send(tensor[1:])
    heard: list[int] = []
    assert not hosts.incoming.arrived(hosts.member, payload) and hosts.incoming.waits
    hosts.bring(payload)
    landed = hosts.incoming.take(hosts.member, payload, None, lambda: heard.append(1))
    assert heard == [1] and torch.equal(landed.tensor, rows[1:])
    hosts.outgoing.give_back(payload.slot, by="p")
    assert hosts.outgoing.in_use == hosts.reader.in_use == 0 and not hosts.incoming.waits


ACTIONS = st.lists(
    st.tuples(st.sampled_from(["send", "network", "network", "look", "lost"]), st.integers(0, 9)),
    max_size=60,
)


@given(ACTIONS)
def test_in_any_order_what_is_taken_is_what_was_sent_or_an_error(
    actions: list[tuple[str, int]],
) -> None:
    """The sender may take the receiver for dead, and use slots anew, between any two reads."""
    hosts = Hosts()
    waiting: list[tuple[Payload, int]] = []
    for value, (action, number) in enumerate(actions):
        if action == "send":
            sent = hosts.outgoing.stage(torch.full((150,), float(value)), to="p", route=NIXL)
            if sent is not None:
                waiting.append((sent.payload, value))
        elif action == "network":
            hosts.network.run(number)
        elif action == "lost":
            hosts.outgoing.peer_lost("p")
        for payload, value_sent in list(waiting):
            if action == "look" and hosts.incoming.arrived(hosts.member, payload):
                waiting.remove((payload, value_sent))
                try:
                    landed = hosts.incoming.take(hosts.member, payload, None)
                except Unavailable:
                    continue
                assert landed.tensor.tolist() == [float(value_sent)] * 150
                hosts.outgoing.give_back(payload.slot, by="p")
    for payload, _ in waiting:
        hosts.bring(payload)
        hosts.incoming.discard(hosts.member.name, payload)
    hosts.incoming.settle()
    assert hosts.reader.in_use == 0
    hosts.close()


def test_a_slot_that_was_used_anew_is_no_tensor(hosts: Hosts) -> None:
    payload = hosts.send(torch.ones(16))
    hosts.outgoing.peer_lost("p")
    hosts.send(torch.zeros(16))
    hosts.bring(payload)
    with pytest.raises(Unavailable, match="took its memory back"):
        hosts.incoming.take(hosts.member, payload, None)
    assert hosts.reader.in_use == 0


def test_a_network_that_fails_is_an_error_and_not_a_wait(hosts: Hosts) -> None:
    payload = hosts.send(torch.ones(16))
    assert not hosts.incoming.arrived(hosts.member, payload)
    hosts.network.fail_all()
    assert hosts.incoming.arrived(hosts.member, payload)
    with pytest.raises(Unavailable):
        hosts.incoming.take(hosts.member, payload, None)


def test_a_sender_that_is_gone_leaves_nothing_behind(hosts: Hosts) -> None:
    """Its bytes may still come: their room is free once they have."""
    payload = hosts.send(torch.ones(16))
    assert not hosts.incoming.arrived(hosts.member, payload)
    hosts.incoming.forget(hosts.member.name)
    assert hosts.incoming.waits and hosts.reader.in_use > 0
    hosts.network.run_all()
    hosts.incoming.settle()
    hosts.network.run_all()
    hosts.incoming.settle()
    assert not hosts.incoming.waits and hosts.reader.in_use == 0


def refused(hosts: Hosts, payload: Payload, source: Member) -> None:
    heard: list[int] = []
    assert hosts.incoming.arrived(source, payload)
    with pytest.raises(ProtocolError):
        hosts.incoming.take(source, payload, None, lambda: heard.append(1))
    assert heard == [1] and not hosts.network.pending


def test_what_was_not_agreed_on_or_lies_outside_is_refused(hosts: Hosts) -> None:
    good, replace = hosts.send(torch.ones(16)), dataclasses.replace
    refused(hosts, good, replace(hosts.member, remote=None))
    refused(hosts, good, replace(hosts.member, name="r", remote=Remote(metadata=b"an agent")))
    bad = Remote(metadata=b"?", address=1, num_bytes=ARENA)
    refused(hosts, good, replace(hosts.member, name="s", remote=bad))
    for offset in (-64, 0, 63, ARENA - 63, 1 << 60):
        refused(hosts, replace(good, offset=offset), hosts.member)
    refused(hosts, replace(good, shape=(1024,), nbytes=4096), hosts.member)
    nobody = Incoming()
    with pytest.raises(EpdError):
        nobody.take(hosts.member, good, None)


def test_only_hosts_that_both_have_it_use_it() -> None:
    lends = dataclasses.replace(member("s"), remote=Remote(metadata=b"m", num_bytes=9))
    far = dataclasses.replace(member(""), host="far")
    reads = dataclasses.replace(far, remote=Remote(metadata=b"m"))
    assert route(lends, reads) == NIXL
    assert route(lends, far) == route(reads, lends) == route(member("s"), reads) == FRAMES


REAL = """
import sys, torch
from dataclasses import replace
from epd.transfer.incoming import Incoming
from epd.transfer.nixl import NixlAgent, RemoteReader
from epd.transfer.outgoing import Outgoing
from epd.transfer.ways import NIXL
from epd.types import Remote
from epd.wire.messages import Payload
from tests.transfer.ends import member, staged
if sys.argv[1] == "sender":
    outgoing = Outgoing(arena_bytes=1 << 20, agent=NixlAgent("sender"))
    sent = outgoing.stage(torch.arange(5000.0), to="p", route=NIXL).payload
    told = (outgoing.segment, outgoing.remote.metadata.hex(), outgoing.remote.address, sent.slot,
            sent.offset)
    print(*told, flush=True)
    sys.stdin.readline()
    outgoing.close()
else:
    segment, metadata, address, slot, offset = sys.argv[2:]
    remote = Remote(metadata=bytes.fromhex(metadata), address=int(address), num_bytes=1 << 20)
    source = replace(member(segment), remote=remote)
    payload = Payload(dtype="float32", shape=(5000,), nbytes=20000, slot=int(slot),
                      offset=int(offset), remote=True)
    incoming = Incoming(reader=RemoteReader(NixlAgent("receiver"), 1 << 20))
    while not incoming.arrived(source, payload):
        pass
    assert torch.equal(incoming.take(source, payload, None).tensor, torch.arange(5000.0))
    print("equal")
"""


def test_two_processes_with_the_real_library() -> None:
    pytest.importorskip("nixl", reason="the extra nixl is not installed")
    command = [sys.executable, "-c", REAL]
    with subprocess.Popen(
        [*command, "sender"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as sender:
        assert sender.stdout is not None and sender.stdin is not None
        told = next(line for line in sender.stdout if line.startswith("epd-")).split()
        done = subprocess.run(
            [*command, "receiver", *told], capture_output=True, text=True, timeout=60
        )
        sender.communicate("\n", timeout=60)
    assert done.stdout.strip().endswith("equal"), done.stderr
