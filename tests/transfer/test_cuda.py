"""Tensors of a real GPU: through CUDA IPC into another process, and through pinned memory."""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import replace

import pytest
import torch

from epd.transfer.incoming import Incoming
from epd.transfer.outgoing import Outgoing, Staged
from epd.transfer.ways import FRAMES, SHARED, Route, Way
from epd.types import Gpu
from tests.transfer.ends import member, staged
from tests.waits import waits

pytestmark = [pytest.mark.gpu, pytest.mark.simulated]

ARENA = 1 << 22

READER = """
import sys
from dataclasses import replace
import torch
from epd.transfer.cuda import CudaRuntime
from epd.transfer.incoming import Incoming
from epd.types import Gpu
from epd.wire.messages import Payload
from tests.transfer.ends import member
device, handle, slot, offset = sys.argv[1:]
gpu = Gpu(device=device, reaches=(), lease="", handle=bytes.fromhex(handle))
incoming = Incoming(CudaRuntime("cuda"))
payload = Payload(dtype="bfloat16", shape=(1000, 64), nbytes=128000, slot=int(slot),
                  offset=int(offset), device=True)
heard = []
landed = incoming.take(replace(member(""), gpu=gpu), payload, None, lambda: heard.append(1))
expected = torch.arange(64000, dtype=torch.float32).to(torch.bfloat16).view(1000, 64)
own = landed.tensor[10:] * 1
assert own.is_cuda and torch.equal(own.cpu(), expected[10:])
del landed
incoming.settle()
torch.cuda.synchronize()
incoming.settle()
incoming.close()
print("equal" if heard == [1] else "not given back")
"""


def rows() -> torch.Tensor:
    return torch.arange(64000, dtype=torch.float32).to(torch.bfloat16).view(1000, 64)


@pytest.mark.parametrize("kept", [False, True], ids=["copied", "kept"])
def test_another_process_reads_what_is_lent(*, kept: bool) -> None:
    from epd.transfer.cuda import CudaRuntime

    runtime = CudaRuntime("cuda")
    outgoing = Outgoing(arena_bytes=0, runtime=runtime, device_bytes=ARENA)
    tensor = rows().cuda()
    if kept:
        tensor = outgoing.keep(tensor)
    sent = staged(outgoing.stage(tensor, to="p", route=Route(Way.CUDA_IPC, "lease"))).payload
    told = [runtime.device, outgoing.handle.hex(), str(sent.slot), str(sent.offset)]
    done = subprocess.run(
        [sys.executable, "-c", READER, *told], capture_output=True, text=True, timeout=120
    )
    assert done.stdout.strip() == "equal", done.stderr
    outgoing.give_back(sent.slot, by="p")
    assert outgoing.in_use == 0 and outgoing.ignored == 0
    outgoing.close()


def test_a_process_reads_its_own_memory_where_it_is() -> None:
    """As the two halves of an engine do."""
    from epd.transfer.cuda import CudaRuntime

    runtime = CudaRuntime("cuda")
    outgoing = Outgoing(arena_bytes=0, runtime=runtime, device_bytes=ARENA)
    incoming = Incoming(runtime)
    tensor = outgoing.keep(rows().cuda())
    sent = staged(outgoing.stage(tensor, to="p", route=Route(Way.CUDA_IPC, "lease"))).payload
    gpu = Gpu(device=runtime.device, reaches=(), lease="", handle=outgoing.handle)
    heard: list[int] = []
    owner = replace(member(""), gpu=gpu)
    landed = incoming.take(owner, sent, None, lambda: heard.append(1))
    assert landed.tensor.data_ptr() == tensor.data_ptr() and torch.equal(landed.tensor, tensor)
    del landed
    incoming.settle()
    torch.cuda.synchronize()
    incoming.settle()
    assert heard == [1]
    incoming.close()
    assert torch.equal(tensor.cpu(), rows()), "it is not unmapped"
    outgoing.close()


def ready(sent: Staged) -> Staged:
    ends = time.monotonic() + 10
    while not sent.ready:
        assert time.monotonic() < ends
    return sent


@pytest.mark.parametrize("way", [SHARED, FRAMES], ids=["shared", "frames"])
def test_bytes_come_to_the_host_without_a_wait(way: Route) -> None:
    """Nothing that stage() does waits for the GPU."""
    from epd.transfer.cuda import CudaRuntime

    outgoing, incoming = Outgoing(arena_bytes=ARENA, runtime=CudaRuntime("cuda")), Incoming()
    tensor = rows().cuda() * 1  # nobody waits for it either
    outgoing.take_back(staged(outgoing.stage(tensor, to="p", route=way)), to="p")
    with waits() as who:
        sent = staged(outgoing.stage(tensor, to="p", route=way))
    assert not who
    ready(sent)
    landed = incoming.take(member(outgoing.segment), sent.payload, sent.frame)
    assert torch.equal(landed.tensor, rows())
    del landed
    incoming.close()
    outgoing.close()
