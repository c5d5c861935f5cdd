"""torchvision can be imported, whichever build of it lies beside whichever build of torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from epd.models import torchvision_shim
from epd.models.torchvision_shim import prepare_torchvision


def test_torchvision_imports_after_it_and_transforms_work() -> None:
    program = (
        "from epd.models.torchvision_shim import prepare_torchvision\n"
        "declared = prepare_torchvision()\n"
        "assert prepare_torchvision() == declared\n"
        "import torch\n"
        "from torchvision.transforms.v2 import functional\n"
        "print(functional.resize(torch.zeros(3, 8, 8), [4, 4]).shape[-1])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "4"


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a process that has not imported torchvision, with torch built for the CPU."""
    monkeypatch.setattr(torchvision_shim, "_DECLARED", [])
    monkeypatch.delitem(sys.modules, "torchvision", raising=False)
    monkeypatch.setattr("torch.version.cuda", None)


@pytest.mark.usefixtures("fresh")
def test_a_torchvision_that_loads_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    import _ctypes

    library = Path(_ctypes.__file__)  # a library that certainly loads
    monkeypatch.setattr(torchvision_shim, "_compiled_half", lambda: library)
    assert not prepare_torchvision()


@pytest.mark.usefixtures("fresh")
def test_without_torchvision_there_is_nothing_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert not prepare_torchvision()


@pytest.mark.usefixtures("fresh")
def test_a_torch_with_cuda_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.version.cuda", "13.0")
    monkeypatch.setattr(torchvision_shim, "_compiled_half", lambda: pytest.fail("looked at it"))
    assert not prepare_torchvision()
