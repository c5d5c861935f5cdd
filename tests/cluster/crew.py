"""Roles started one by one, hurt and started again: the same name, the same address."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.cluster.front import Front
from tests.hosts import Hosts
from tests.programs import Program

START_S = 240.0
STOP_S = 120.0
LOCALHOST = "127.0.0.1"


def ports() -> int:
    """The first of many that no other test run uses, nor the system for connections."""
    return 10_000 + os.getpid() % 500 * 40


class Hand:
    """One role of a crew: what to run, and what runs."""

    def __init__(
        self, name: str, argv: list[str], log: Path, *, module: str, before: Sequence[str] = ()
    ) -> None:
        self.name = name
        self.argv = argv
        self.log = log
        self.module = module
        self._before = before
        self.process: subprocess.Popen[bytes] | Program
        self._ready = -1

    def start(self) -> None:
        """Run it; ready() waits for it."""
        self._ready, writer = os.pipe()
        with self.log.open("ab") as log:
            argv = [*self.argv, "--ready-fd", str(writer)]
            if self._before:
                program = [*self._before, sys.executable, "-m", self.module, *argv]
                self.process = subprocess.Popen(program, pass_fds=(writer,), stderr=log)
            else:
                error, module = log.fileno(), self.module
                self.process = Program(argv, module=module, stderr=error, pass_fds=(writer,))
        os.close(writer)

    def ready(self) -> dict[str, Any]:
        """What it says once it serves."""
        readable, _, _ = select.select([self._ready], [], [], START_S)
        assert readable, f"{self.name} is not ready:\n{self.log.read_text()}"
        with os.fdopen(self._ready) as pipe:
            line = pipe.readline()
        self._ready = -1
        assert line, f"{self.name} did not start:\n{self.log.read_text()}"
        found: dict[str, Any] = json.loads(line)
        return found

    def end(self, number: int) -> int:
        """Send a signal and wait for the end; the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
            self.process.send_signal(signal.SIGCONT)  # in case that it was stopped
        if self._ready >= 0:
            os.close(self._ready)
            self._ready = -1
        return self.process.wait(STOP_S)


class Crew:
    """Gateways and workers by name: "prefill-1" is a prefill worker. To be closed.

    Each has an address of its own, whether it runs or not; with `hosts` it is on the one that
    start() is told.
    """

    def __init__(
        self, model: Path, folder: Path, *settings: str, port: int, hosts: Hosts | None = None
    ) -> None:
        self.model = model
        self.hands: dict[str, Hand] = {}
        self._settings = (f"model={model}", "dtype=float32", "language.kv_tokens=16384", *settings)
        self._folder = folder
        self._port = port
        self._hosts = hosts
        self._gateways: list[str] = []

    def start(self, name: str, *settings: str, on: str = "", module: str = "epd") -> Hand:
        """Gateways before workers. `module` runs the role; ready() is still to be called."""
        role, port = name.partition("-")[0], self._port + 3 * len(self.hands)
        host = LOCALHOST if self._hosts is None else self._hosts.address(on)
        own = [f"name={name}", f"listen=tcp://{host}:{port}"]
        if role == "gateway":
            own += [f"gateway.host={host}", f"gateway.port={port + 2}"]
            self._gateways.append(f"tcp://{host}:{port}")
        else:
            own.append(f"gateways=[{','.join(self._gateways)}]")
        before = () if self._hosts is None else self._hosts.command(on)
        argv = [role]
        for setting in (*self._settings, *own, *settings):
            argv += ["--set", setting]
        hand = self.hands[name] = Hand(
            name, argv, self._folder / f"{name}.log", module=module, before=before
        )
        hand.start()
        return hand

    def front(self, name: str) -> Front:
        """A gateway that runs now, once it is ready."""
        return Front(str(self.hands[name].ready()["url"]), self.model.name)

    def kill(self, name: str) -> None:
        """kill -9, waited for."""
        self.hands[name].end(signal.SIGKILL)

    def again(self, name: str, number: int = signal.SIGTERM) -> Hand:
        """End it with a signal and start it again at once, at the same address."""
        hand = self.hands[name]
        code = hand.end(number)
        assert code in (0, -number), f"{name} ended with {code}:\n{hand.log.read_text()}"
        hand.start()
        return hand

    def tracebacks(self) -> list[str]:
        """Names of those that wrote one."""
        return [name for name, hand in self.hands.items() if "raceback" in hand.log.read_text()]

    def close(self) -> None:
        """Stop all that still run, gateways first; those that were just starting are cut short."""
        codes = {name: hand.end(signal.SIGTERM) for name, hand in self.hands.items()}
        assert set(codes.values()) <= {0, -signal.SIGKILL, -signal.SIGTERM}, codes
