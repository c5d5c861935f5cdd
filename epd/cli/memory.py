"""What a whole local cluster will need of memory: refused as a whole, before anything starts."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from epd.config import Config, Topology
from epd.errors import ConfigError, EpdError
from epd.models.spec import Checkpoint, read_checkpoint
from epd.observe.machine import available_host, available_shared
from epd.observe.memory import Machine, Need, check_fits, parts, table, together
from epd.workers.memory import needs_of

DRIVER = Path("/proc/driver/nvidia/version")

# In a process of its own: the supervisor stays small and imports no torch.
ASK_DEVICE = """\
import torch
if torch.cuda.is_available():
    print(torch.cuda.mem_get_info()[0])
"""


def check_cluster(config: Config, checkpoint: Checkpoint) -> str:
    """The table of all processes of `epd serve`. ConfigError when the machine has less."""
    machine = _machine(config)
    needs = together(list(_by_process(config, checkpoint, machine).values()))
    check_fits(needs, machine, f"{config.topology} on one machine")
    return table(needs, machine)


def estimate(config: Config) -> Iterator[str]:
    """Lines for `epd check`: of each role, of all, and whether `epd serve` would start here."""
    try:
        if not config.model:
            raise ConfigError("model is not set")
        checkpoint = read_checkpoint(
            config.model,
            max_context=config.language.max_context,
            dummy=config.load_format == "dummy",
        )
        machine = _machine(config)
        processes = _by_process(config, checkpoint, machine)
    except EpdError as error:
        yield f"memory: not known ({error})"
        return
    for name, needs in processes.items():
        yield f"memory of {name}: {parts(needs)}"
    needs = together(list(processes.values()))
    yield table(needs, machine)
    try:
        check_fits(needs, machine, f"{config.topology} on this machine")
    except ConfigError as error:
        yield f"it does not fit: {error}"


def _by_process(config: Config, checkpoint: Checkpoint, machine: Machine) -> dict[str, list[Need]]:
    device = "cpu" if machine.device is None else "cuda"
    return {
        name: needs_of(role, config, checkpoint, device=device)
        for role, name in Topology.parse(config.topology).names()
    }


def _machine(config: Config) -> Machine:
    return Machine(
        host=available_host(),
        shared=available_shared(),
        device=None if config.device == "cpu" else _free_device(),
    )


def _free_device() -> int | None:
    """Bytes that are free on the GPU; None without one."""
    if not DRIVER.exists():
        return None
    done = subprocess.run(
        [sys.executable, "-c", ASK_DEVICE], stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    return int(done.stdout) if done.returncode == 0 and done.stdout.strip() else None
