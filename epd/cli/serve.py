"""`epd serve`: a whole cluster on this machine, as one command."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import setproctitle

from epd.cli import default_model, environment
from epd.cli.child import ChildSpec
from epd.cli.main import main
from epd.cli.memory import check_cluster
from epd.cli.runtime import runtime_folder
from epd.cli.supervisor import Ready, StopSignals, Supervisor
from epd.config import Config, Topology, dump_config, load_config
from epd.errors import ConfigError
from epd.models.spec import read_checkpoint
from epd.workers.kv_plan import with_kv
from epd.workers.preload import preload
from epd.workers.ready import say_ready

log = logging.getLogger("epd.serve")

GATEWAY = "gateway-0"


def serve(
    path: str | None,
    overrides: Sequence[str],
    *,
    ready_fd: int | None = None,
    parent_fd: int | None = None,
) -> int:
    """Run until a signal, or until whoever started this is gone; the command's exit code."""
    logging.basicConfig(format="epd serve: %(message)s", level=logging.INFO, stream=sys.stderr)
    config = resolve(load_config(path, overrides))
    # Before the environment changes: it finds a title's place by where both lie in memory.
    setproctitle.setproctitle(f"epd: serve {config.topology} ({Path(config.model).name})")
    assert config.threads is not None
    # Before torch is loaded, which the sizes of random weights need.
    os.environ |= environment.worker_environment(config.threads)
    # What cannot be served is refused before anything starts.
    checkpoint = read_checkpoint(
        config.model,
        max_context=config.language.max_context,
        dummy=config.load_format == "dummy",
    )
    plan = check_cluster(config, checkpoint)
    log.info("%s", plan.table)
    with StopSignals() as stop, runtime_folder(environment.runtime_base()) as folder:

        def on_ready(ready: Ready) -> None:
            pin_port(config, folder, ready)
            print(ready_line(config, ready), flush=True)
            say_ready(ready_fd, url=url_of(ready), model=config.gateway.served_model_name)

        supervisor = Supervisor(
            child_specs(config, folder, plan.kv_bytes),
            stop,
            on_ready=on_ready,
            start_timeout_s=config.serve.start_timeout_s,
            stop_grace_s=config.serve.stop_grace_s,
            max_restarts=config.serve.max_restarts,
            parent_fd=parent_fd,
        )
        try:
            return supervisor.run()
        finally:
            _free_shared_memory()


def _free_shared_memory() -> None:
    """What a killed child could not free itself; segments of living processes are left alone."""
    from epd.transfer.segments import reclaim_dead

    reclaim_dead()


def resolve(config: Config) -> Config:
    """The configuration with a model that exists, the name clients use for it, and threads."""
    if config.listen or config.gateways or config.name:
        raise ConfigError(
            "name, listen and gateways are for a role started by hand; epd serve sets them itself"
        )
    model, name = config.model, config.gateway.served_model_name
    if not model:
        model, name = str(default_model.path()), name or default_model.NAME
        config = default_model.with_small_caches(config)
    folder = Path(model).expanduser().resolve()
    if not (folder / "config.json").is_file():
        raise ConfigError(f"model: {model} is no folder with a config.json", param="model")
    workers = Topology.parse(config.topology).num_workers
    gateway = config.gateway.model_copy(update={"served_model_name": name or folder.name})
    return config.model_copy(
        update={
            "model": str(folder),
            "gateway": gateway,
            "threads": config.threads or max(1, environment.num_cores() // workers),
        }
    )


def child_specs(
    config: Config, folder: Path, kv_bytes: Mapping[str, int] | None = None
) -> list[ChildSpec]:
    """Write each child's configuration into `folder`; what to run, gateway first.

    `kv_bytes`: what was planned for some of them, by name.
    All are copies of this process, the gateway of what it is before torch is loaded for the others.
    """
    specs = []
    for role, name in Topology.parse(config.topology).names():
        own = with_kv(config, (kv_bytes or {}).get(name))
        argv = (role, "--config", str(write_config(own, role, name, folder)))
        load = None if role == "gateway" else partial(_load, config)
        specs.append(ChildSpec(name=name, role=role, argv=argv, run=main, load=load))
    return specs


def _load(config: Config) -> None:
    """What workers would import each for itself. What fails here fails there, and is told there."""
    with contextlib.suppress(Exception):
        preload(read_checkpoint(config.model, dummy=config.load_format == "dummy"))


def write_config(config: Config, role: str, name: str, folder: Path) -> Path:
    """One child's file."""
    path = folder / f"{name}.yaml"
    path.write_text(dump_config(child_config(config, role, name, folder)), encoding="utf-8")
    return path


def pin_port(config: Config, folder: Path, ready: Ready) -> None:
    """A gateway that is started again must be where its clients know it, also on a free port."""
    port = urlsplit(str(ready[GATEWAY].get("url", ""))).port
    gateway = config.gateway.model_copy(update={"port": port or config.gateway.port})
    write_config(config.model_copy(update={"gateway": gateway}), "gateway", GATEWAY, folder)


def child_config(config: Config, role: str, name: str, folder: Path) -> Config:
    """One child's own configuration. Sockets lie in `folder`; the gateway's name is known.

    It does not drain when the whole cluster stops: there is nobody left to finish for. The files of
    probes are for a single role.
    """
    gateways = () if role == "gateway" else (f"ipc://{folder}/{GATEWAY}.c",)
    update: dict[str, Any] = {
        "name": name,
        "listen": f"ipc://{folder}",
        "gateways": gateways,
        "drain_s": 0.0,
        "probe_dir": None,
    }
    if role != "gateway":
        own = config.placement.of(role).of_worker(int(name.rpartition("-")[2]))
        update["placement"] = config.placement.model_copy(update={role: own})
    return config.model_copy(update=update)


def url_of(ready: Ready) -> str:
    """Where clients find the gateway."""
    return str(ready[GATEWAY].get("url", "")).rstrip("/")


def ready_line(config: Config, ready: Ready) -> str:
    """The one line on stdout: where it is, what it is, and a command that works."""
    url = url_of(ready)
    name = config.gateway.served_model_name
    body = {
        "model": name,
        "messages": [{"role": "user", "content": "Hello"}],
        "max_tokens": 16,
    }
    gateway = config.gateway
    key = "-H 'Authorization: Bearer KEY' " if gateway.api_keys or gateway.api_keys_file else ""
    return (
        f"epd is ready: {url}/v1 ({name}, {config.topology})  try: "
        f"curl {url}/v1/chat/completions {key}-H 'Content-Type: application/json' "
        f"-d {shlex.quote(json.dumps(body))}"
    )
