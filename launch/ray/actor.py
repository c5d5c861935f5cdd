"""One role inside a Ray actor: a process of its own, which Ray starts again when it ends.

Goes to the nodes by value, so imports nothing of this repository: the process is `python -m epd`.
Ray carries none of the data path.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


class RoleActor:
    """A role's process. When it ends unasked, this process does too, and Ray makes another one."""

    def __init__(
        self,
        role: str,
        python: str,
        settings: Sequence[str],
        files: Mapping[str, str],
    ) -> None:
        """`settings` may say {address} and {folder}; `files` are written to that folder, 0600."""
        import ray

        address = ray.util.get_node_ip_address()
        self._folder = tempfile.TemporaryDirectory(prefix="epd-ray-")
        place = Path(self._folder.name)
        for name, text in files.items():
            file = place / name
            file.parent.mkdir(mode=0o700, exist_ok=True)
            file.touch(0o600)
            file.write_text(text, encoding="utf-8")
        argv = [python, "-m", "epd", role]
        if "config.yaml" in files:
            argv += ["--config", str(place / "config.yaml")]
        for setting in settings:
            known = setting.replace("{address}", address).replace("{folder}", str(place))
            argv += ["--set", known]
        self._ready, ready = os.pipe()
        parent, self._life = os.pipe()  # the role ends when this process does, however it does
        argv += ["--ready-fd", str(ready), "--parent-fd", str(parent)]
        self._process = subprocess.Popen(argv, pass_fds=(ready, parent), start_new_session=True)
        os.close(ready)
        os.close(parent)
        self._stopping = False
        self._said: dict[str, Any] = {}
        self._serves = threading.Event()
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        with os.fdopen(self._ready) as pipe:
            line = pipe.readline()
        self._said = json.loads(line or "{}")
        self._serves.set()
        code = self._process.wait()
        if self._said.get("ready") and not self._stopping:
            os._exit(1)
        self._said = {"error": f"ended with {code}", **self._said, "ready": False}

    def ready(self, timeout_s: float) -> dict[str, Any]:
        """What it said when it served, or why it does not; with its process."""
        self._serves.wait(timeout_s)
        return {**self._said, "pid": self._process.pid, "actor": os.getpid()}

    def stop(self, seconds: float) -> int:
        """Drain and end; the exit code."""
        self._stopping = True
        self._process.send_signal(signal.SIGTERM)
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()
