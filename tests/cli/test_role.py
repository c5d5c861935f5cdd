"""A role's process: what `ps` shows, and what happens when its supervisor is gone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import psutil

# The role itself is not what is tested: it only waits for the signal that ends it.
ROLE = """
import signal, sys, types
workers = types.ModuleType("epd.workers")
def run_role(role, config, *, ready_fd):
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    print("up", flush=True)
    signal.sigwait([signal.SIGTERM])
    return 5
workers.run_role = run_role
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
sys.modules["epd.workers"] = workers
from epd.cli.main import main
sys.exit(main(sys.argv[1:]))
"""
FLAGS = ["encode", "--set", "model=/m/Tiny", "--set", "gateways=[ipc://x]"]


def start(
    *arguments: str, fds: tuple[int, ...] = (), stderr: int | None = None
) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", ROLE, *FLAGS, *arguments]
    child = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=stderr, text=True, pass_fds=fds
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "up\n"
    return child


def test_ps_shows_role_name_and_model() -> None:
    with start("--set", "name=encode-7") as child:
        assert psutil.Process(child.pid).cmdline()[0].startswith("epd: encode encode-7 (Tiny)")
        child.send_signal(signal.SIGTERM)
        assert child.wait() == 5


def test_a_role_stops_in_order_when_its_supervisor_is_gone() -> None:
    """With it goes the reader of stderr: writing there would fail."""
    reader, writer = os.pipe()
    with start("--parent-fd", str(reader), fds=(reader,), stderr=subprocess.PIPE) as child:
        assert child.stderr is not None
        child.stderr.close()
        os.close(reader)
        os.close(writer)
        assert child.wait(timeout=20) == 5
