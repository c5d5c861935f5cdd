"""What the simulated card gives, and that it tells what a real one would not forgive."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from epd.attention.kernels.rms_norm import rms_norm

pytestmark = [pytest.mark.gpu, pytest.mark.simulated]

cuda: Any = torch.cuda  # much of it is untyped


@pytest.fixture(scope="module", autouse=True)
def simulated() -> None:
    if torch.version.cuda is not None:
        pytest.skip("this card is real")


@pytest.fixture
def told() -> Iterator[list[str]]:
    """Faults that the test is about; it fills the list by asking()."""
    found: list[str] = []
    yield found
    assert found


def asking(found: list[str]) -> list[str]:
    from tests.simulated.card import card

    found += card.told()
    return found


def on_card(*sizes: int) -> torch.Tensor:
    return torch.ones(*sizes, device="cuda")


def test_tensors_say_that_they_are_on_a_card_and_compute_as_on_the_host() -> None:
    torch.manual_seed(0)
    x, w = torch.randn(5, 8), torch.randn(7, 8)
    there = F.linear(x.cuda(), w.cuda())
    assert there.is_cuda and there.device == torch.device("cuda", 0)
    torch.testing.assert_close(there.cpu(), F.linear(x, w))
    view = there.view(7, 5)[1:3]
    view.zero_()
    assert there.cpu().flatten()[5:15].count_nonzero() == 0
    assert torch.arange(3, device="cuda").tolist() == [0, 1, 2]


def test_host_and_device_do_not_mix() -> None:
    with pytest.raises(RuntimeError, match="same device"):
        on_card(3) + torch.ones(3)
    assert (on_card(3) + torch.tensor(1.0)).tolist() == [2.0] * 3


def test_a_kernel_takes_no_memory_of_the_host() -> None:
    x, weight = on_card(2, 8), torch.ones(8)
    assert rms_norm(x, weight.cuda(), 1e-6).is_cuda
    with pytest.raises(ValueError, match="cpu tensor"):
        rms_norm(x, weight, 1e-6)


def test_new_memory_holds_nothing() -> None:
    assert torch.empty(4, device="cuda").isnan().all()


def test_a_copy_to_the_host_arrives_when_it_is_waited_for() -> None:
    here = torch.zeros(4, pin_memory=True)
    here.copy_(on_card(4), non_blocking=True)
    done = cuda.Event()
    done.record()
    assert here.isnan().all()
    done.synchronize()
    assert here.tolist() == [1.0] * 4


def test_pinned_memory_that_changes_before_its_copy_is_done_is_told(told: list[str]) -> None:
    here = torch.ones(4).pin_memory()
    there = here.to("cuda", non_blocking=True)
    here.zero_()
    assert "the host wrote to its source" in asking(told)[0]
    del there


def test_streams_without_an_order_are_told(told: list[str]) -> None:
    side, values = cuda.Stream(), on_card(4)
    with cuda.stream(side):
        values.add_(1)
    assert "no order between streams" in asking(told)[0] and "test_card.py" in told[0]
    side.synchronize()


def test_streams_that_wait_are_in_order() -> None:
    side, values = cuda.Stream(), on_card(4)
    side.wait_stream(cuda.current_stream())
    with cuda.stream(side):
        values.add_(1)
    cuda.current_stream().wait_stream(side)
    assert values.tolist() == [2.0] * 4


def test_memory_that_another_stream_still_reads_is_told_when_it_is_let_go(told: list[str]) -> None:
    side, values = cuda.Stream(), on_card(4)
    side.wait_stream(cuda.current_stream())
    with cuda.stream(side):
        sums = values.sum()
    del values
    torch.zeros(1, device="cuda")
    assert "given back while it may still run" in asking(told)[0]
    side.synchronize()
    del sums


def test_memory_of_which_the_allocator_knows_who_reads_it_is_let_go() -> None:
    side, values = cuda.Stream(), on_card(4)
    side.wait_stream(cuda.current_stream())
    with cuda.stream(side):
        sums = values.sum()
    values.record_stream(side)
    del values
    side.synchronize()
    assert sums.item() == 4


def test_a_graph_repeats_what_was_recorded_on_what_is_there_now() -> None:
    x, total = on_card(4), torch.zeros(4, device="cuda")
    graph = cuda.CUDAGraph()
    with cuda.graph(graph):
        twice = x * 2
        total += twice
    assert total.tolist() == [0.0] * 4 and twice.isnan().all(), "nothing was done yet"
    graph.replay()
    x.fill_(5)
    graph.replay()
    assert (twice.tolist(), total.tolist()) == ([10.0] * 4, [12.0] * 4)


@pytest.mark.parametrize("what", ["item", "upload", "download"])
def test_what_waits_cannot_be_recorded(what: str) -> None:
    x, pinned = on_card(4), torch.ones(4).pin_memory()
    with pytest.raises(RuntimeError), cuda.graph(cuda.CUDAGraph()):
        if what == "item":
            x[0].item()
        elif what == "upload":
            x.copy_(pinned, non_blocking=True)
        else:
            pinned.copy_(x, non_blocking=True)


@pytest.mark.parametrize(
    "wait",
    [
        lambda x: x[0].item(),
        lambda x: x.nonzero(),
        lambda x: x[x > 0],
        lambda x: x[torch.tensor([0, 1])],
        lambda x: x.cpu(),
        lambda x: torch.ones(4).to("cuda", non_blocking=True),
        lambda x: torch.tensor([1.0], device="cuda"),
        lambda x: cuda.current_stream().synchronize(),
    ],
)
def test_what_waits_raises_where_torch_is_asked_for_that(wait: Any) -> None:
    x = on_card(4)
    cuda.set_sync_debug_mode("error")
    try:
        x[1:].add_(1)
        with pytest.raises(RuntimeError, match="synchronizing"):
            wait(x)
    finally:
        cuda.set_sync_debug_mode("default")
    wait(x)


def test_another_process_tells_its_faults() -> None:
    code = "import torch; x = torch.ones(2, device='cuda'); s = torch.cuda.Stream()\n"
    code += "with torch.cuda.stream(s): x.add_(1)"
    site = Path(__file__).parent / "site"
    env = {"PYTHONPATH": f"{site}:{Path(__file__).parents[2]}"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env)
    assert done.returncode == 0 and "simulated card:" in done.stderr, done.stderr
