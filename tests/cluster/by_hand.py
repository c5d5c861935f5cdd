"""Roles started one by one, each a process to be watched, drained, killed and started again."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import httpx

from tests.cluster.running import eventually
from tests.programs import Program

START_S = 200.0


class Role:
    """One process; `ready` waits for what it says when it serves."""

    def __init__(self, role: str, model: Path, name: str, *settings: str) -> None:
        ready, writer = os.pipe()
        argv = [role, "--ready-fd", str(writer)]
        for setting in (f"model={model}", f"name={name}", "dtype=float32", "threads=1", *settings):
            argv += ["--set", setting]
        env = {**os.environ, "OMP_NUM_THREADS": "1"}
        self.name = name
        with Path(os.devnull).open("wb") as nowhere:
            self.process = Program(argv, stderr=nowhere.fileno(), pass_fds=(writer,), env=env)
        os.close(writer)
        self._ready = os.fdopen(ready)
        self._said: dict[str, Any] | None = None

    @property
    def ready(self) -> dict[str, Any]:
        if self._said is None:
            self._said = dict(json.loads(self._ready.readline() or "{}"))
            assert self._said.get("ready"), self._said
        return self._said

    def terminate(self) -> None:
        """Ask it to drain and leave."""
        self.process.send_signal(signal.SIGTERM)

    def ended(self, timeout_s: float = 30.0) -> int:
        """Its exit code, waited for."""
        return self.process.wait(timeout_s)

    def kill(self) -> None:
        """The end of the test."""
        self.process.kill()
        self.process.wait(10)
        self._ready.close()


class Roles:
    """A cluster of roles by hand, in the order of their start. All are killed at the end."""

    def __init__(self, model: Path, *settings: str) -> None:
        self.model = model.name
        self._folder = model
        self._settings = settings
        self._gateways: list[Role] = []
        self._roles: list[Role] = []
        self._http = httpx.Client(timeout=30, verify=False)  # it would load certificates first

    def gateway(self, name: str, *settings: str) -> Role:
        """One more, on free ports. Workers that are started later register with all of them."""
        place = ("gateway.port=0", "listen=tcp://127.0.0.1", *self._settings, *settings)
        self._gateways.append(Role("gateway", self._folder, name, *place))
        self._roles.append(self._gateways[-1])
        return self._gateways[-1]

    def worker(self, role: str, name: str, *settings: str, model: Path | None = None) -> Role:
        """Registers with every gateway there is."""
        addresses = ", ".join(gateway.ready["control"] for gateway in self._gateways)
        place = (f"gateways=[{addresses}]", "listen=tcp://127.0.0.1", *self._settings, *settings)
        self._roles.append(Role(role, model or self._folder, name, *place))
        return self._roles[-1]

    @property
    def url(self) -> str:
        """Of the first gateway."""
        return str(self._gateways[0].ready["url"])

    def states(self, url: str | None = None) -> dict[str, str]:
        """Of every worker that a gateway knows."""
        return {row["name"]: row["state"] for row in self.rows(url)}

    def rows(self, url: str | None = None) -> list[dict[str, Any]]:
        """What a gateway shows of its workers."""
        return list(self._http.get(f"{url or self.url}/cluster").json()["workers"])

    def wait_for(self, *names: str, url: str | None = None) -> None:
        """Exactly these workers serve."""
        serving = dict.fromkeys(names, "serving")
        eventually(lambda: self.states(url) == serving, f"{names} serve", START_S)

    def drain(self, name: str, seconds: float) -> httpx.Response:
        """An operator's order."""
        order = {"worker": name, "seconds": seconds}
        return self._http.post(f"{self.url}/cluster/drain", json=order)

    def close(self) -> None:
        for role in reversed(self._roles):
            role.kill()
        self._http.close()
