"""What a whole local cluster will need of memory: refused as a whole, before anything starts."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from epd.config import Config, Topology
from epd.errors import ConfigError, EpdError
from epd.models.sizes import refuse_division
from epd.models.spec import Checkpoint, read_checkpoint
from epd.observe.devices import Gpu, Tenant, check_devices
from epd.observe.machine import available_host, available_shared
from epd.observe.memory import Machine, Need, Where, check_fits, parts, table, together
from epd.workers.memory import needs_of

DRIVER = Path("/proc/driver/nvidia/version")

# In a process of its own: the supervisor stays small and imports no torch.
ASK_DEVICES = """\
import torch
for number in range(torch.cuda.device_count()):
    print(*torch.cuda.mem_get_info(number))
"""


def check_cluster(config: Config, checkpoint: Checkpoint) -> str:
    """The table of all processes of `epd serve`. ConfigError when the machine has less."""
    gpus = _gpus(config)
    tenants = _tenants(config, checkpoint, on_gpu=bool(gpus))
    needs, machine = together([tenant.needs for tenant in tenants]), _machine(gpus)
    _check(tenants, needs, machine, gpus, f"{config.topology} on one machine")
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
        gpus = _gpus(config)
        tenants = _tenants(config, checkpoint, on_gpu=bool(gpus))
    except EpdError as error:
        yield f"memory: not known ({error})"
        return
    for tenant in tenants:
        place = f" on {tenant.device}" if tenant.device else ""
        yield f"memory of {tenant.name}{place}: {parts(tenant.needs)}"
    needs, machine = together([tenant.needs for tenant in tenants]), _machine(gpus)
    yield table(needs, machine)
    try:
        _check(tenants, needs, machine, gpus, f"{config.topology} on this machine")
    except ConfigError as error:
        yield f"it does not fit: {error}"


def _tenants(config: Config, checkpoint: Checkpoint, *, on_gpu: bool) -> list[Tenant]:
    """Every process of the cluster and its device, "" for the host. Divisions are checked."""
    found = []
    usual = "cuda" if on_gpu else "cpu"
    for role, name in Topology.parse(config.topology).names():
        if role == "gateway":
            needs = needs_of(role, config, checkpoint, device="cpu")
            found.append(Tenant(name=name, device="", share=None, needs=needs))
            continue
        placement = config.placement.of(role).of_worker(int(name.rpartition("-")[2]))
        refuse_division(checkpoint, placement.tp)
        for rank in range(placement.tp):
            device = placement.device(rank, usual)
            kind, _, number = device.partition(":")
            found.append(
                Tenant(
                    name=f"{name} rank {rank}" if placement.tp > 1 else name,
                    device=f"{kind}:{number or 0}" if kind == "cuda" else "",
                    share=placement.share,
                    needs=needs_of(role, config, checkpoint, device=kind, rank=rank),
                )
            )
    return found


def _check(
    tenants: Sequence[Tenant],
    needs: Sequence[Need],
    machine: Machine,
    gpus: Mapping[str, Gpu],
    who: str,
) -> None:
    check_devices([tenant for tenant in tenants if tenant.device], gpus)
    check_fits([need for need in needs if need.where is not Where.DEVICE], machine, who)


def _machine(gpus: Mapping[str, Gpu]) -> Machine:
    return Machine(
        host=available_host(),
        shared=available_shared(),
        device=sum(gpu.free for gpu in gpus.values()) if gpus else None,
    )


def _gpus(config: Config) -> dict[str, Gpu]:
    """Those of this machine by name; none where the configuration wants the CPU."""
    if config.device == "cpu" or not DRIVER.exists():
        return {}
    done = subprocess.run(
        [sys.executable, "-c", ASK_DEVICES],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    rows = [line.split() for line in done.stdout.splitlines()] if done.returncode == 0 else []
    return {
        f"cuda:{number}": Gpu(free=int(free), total=int(whole))
        for number, (free, whole) in enumerate(rows)
    }
