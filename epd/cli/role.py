"""One role in this process: name it, tie its life to its supervisor's, and run it."""

from __future__ import annotations

import json
import os
import secrets
import signal
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import setproctitle

from epd.cli.environment import cache_folder
from epd.config import Config, load_config
from epd.errors import ConfigError

ORPHAN_GRACE_S = 10.0


def run(
    role: str,
    path: str | None,
    overrides: Sequence[str],
    *,
    ready_fd: int | None,
    parent_fd: int | None,
) -> int:
    """Run `role` until SIGTERM or SIGINT; its exit code. An early error goes to `ready_fd` too."""
    try:
        config = _resolve(role, load_config(path, overrides))
    except ConfigError as error:
        _report(ready_fd, error)
        raise
    setproctitle.setproctitle(f"epd: {role} {config.name} ({Path(config.model).name})")
    if parent_fd is not None:
        threading.Thread(target=_follow, args=(parent_fd,), name="parent", daemon=True).start()
    from epd.workers import run_role  # after the title: this import may take seconds

    return run_role(role, config, ready_fd=ready_fd)


def _resolve(role: str, config: Config) -> Config:
    """All that a single role needs. A random number: names must differ across machines."""
    if not config.model:
        raise ConfigError("model is not set: the folder of a checkpoint", param="model")
    if role != "gateway" and not config.gateways:
        raise ConfigError(
            f"gateways is not set: a {role} worker registers there, for example "
            "gateways: [tcp://127.0.0.1:7400]",
            param="gateways",
        )
    name = config.name or f"{role}-{secrets.randbelow(10**6)}"
    cache_dir = config.cache_dir or str(cache_folder())
    return config.model_copy(update={"name": name, "cache_dir": cache_dir})


def _report(ready_fd: int | None, error: ConfigError) -> None:
    if ready_fd is None:
        return
    with os.fdopen(ready_fd, "w") as ready:
        ready.write(json.dumps({"error": str(error)}) + "\n")


def _follow(parent_fd: int) -> None:
    """Stop like on SIGTERM once the supervisor is gone, however it went.

    Says nothing: with the supervisor went the reader of stderr.
    """
    while os.read(parent_fd, 64):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(ORPHAN_GRACE_S)
    os.kill(os.getpid(), signal.SIGKILL)
