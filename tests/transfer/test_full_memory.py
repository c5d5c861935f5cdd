"""A /dev/shm that is full, in a mount namespace of its own with a tiny one."""

from __future__ import annotations

import subprocess
import sys

import pytest

SMALL = "mount -t tmpfs -o size=256k none /dev/shm && exec"

REFUSED = """
import os
from epd.errors import ConfigError
from epd.transfer import segments
kept, file = segments.create(128 << 10)
for size in (1 << 20, 192 << 10):
    try:
        segments.create(size)
    except ConfigError as error:
        assert "lower wire.shm_bytes" in error.message, error.message
    else:
        raise AssertionError("memory that is not there was given")
    assert os.listdir("/dev/shm") == [kept]
os.close(file)  # as its owner's death does
segments.create(192 << 10)
assert kept not in os.listdir("/dev/shm")
"""

KEPT = """
import torch
from epd.transfer.incoming import Incoming
from epd.transfer.outgoing import Outgoing
from epd.transfer.ways import SHARED
from epd.types import Member
outgoing, incoming = Outgoing(arena_bytes=128 << 10), Incoming()
with open("/dev/shm/greedy", "wb", buffering=0) as file:
    try:
        while file.write(bytes(4096)):
            pass
    except OSError as error:
        assert error.errno == 28, error
member = Member(name="e", incarnation="1", stages=(), control="", bulk="", host="", pool="",
                segment=outgoing.segment)
for size in (100, 30_000):
    sent = torch.arange(size, dtype=torch.float32)
    staged = outgoing.stage(sent, to="p", route=SHARED)
    assert staged.payload.slot >= 0
    assert torch.equal(incoming.take(member, staged.payload, None).tensor, sent)
    outgoing.give_back(staged.payload.slot, by="p")
outgoing.close()
"""


def run_where_it_is_small(script: str) -> None:
    argv = ["unshare", "--mount", "sh", "-c", f'{SMALL} "$@"', "sh"]
    try:
        subprocess.run([*argv, "true"], check=True, capture_output=True)
    except (FileNotFoundError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no mount namespaces: {error}")
    found = subprocess.run([*argv, sys.executable, "-c", script], capture_output=True, text=True)
    assert found.returncode == 0, found.stderr


def test_memory_that_is_not_there_is_refused_and_leaves_nothing_behind() -> None:
    """And what a killed owner had makes room for its successor."""
    run_where_it_is_small(REFUSED)


def test_an_arena_has_its_memory_whatever_others_take() -> None:
    """It is reserved at the start: writing to it later cannot kill the process."""
    run_where_it_is_small(KEPT)
