"""Gives this process two cards. Imported before torch is."""

from __future__ import annotations

import os

from tests.simulated import build

os.environ["TRITON_INTERPRET"] = "1"  # read when kernels are defined
build.load()

import torch  # noqa: E402 - it looks for its devices once
import torch._dynamo  # noqa: E402 - it looks through torch.cuda for what it knows

from tests.simulated import collectives, cuda, kernels, operators  # noqa: E402

LIBRARIES = operators.register()
for name, stand_in in cuda.STANDS_FOR.items():
    setattr(torch.cuda, name, stand_in)
kernels.install()
collectives.install()
torch.empty(1, pin_memory=True)  # before the first, torch holds nothing for pinned
