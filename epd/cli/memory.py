"""What a whole local cluster will need of memory: refused as a whole, before anything starts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from epd.config import Config, Topology
from epd.errors import ConfigError, EpdError
from epd.models.sizes import refuse_division
from epd.models.spec import Checkpoint, read_checkpoint
from epd.observe.devices import Gpu, Tenant, check_devices
from epd.observe.gpus import gpus_here
from epd.observe.machine import available_host, available_shared
from epd.observe.memory import Machine, Need, Where, check_fits, parts, table, together
from epd.workers.kv_plan import Worker, plan_kv, with_kv
from epd.workers.memory import needs_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Of a cluster that fits: the table of all processes, and what was planned of KV on GPUs."""

    table: str
    kv_bytes: Mapping[str, int]  # by the worker's name


def check_cluster(config: Config, checkpoint: Checkpoint) -> Plan:
    """Of all processes of `epd serve`. ConfigError when the machine has less."""
    gpus = _gpus(config)
    planned = plan_kv(config, checkpoint, _workers(config), gpus)
    tenants = _tenants(config, checkpoint, planned, on_gpu=bool(gpus))
    needs, machine = together([tenant.needs for tenant in tenants]), _machine(gpus)
    _check(tenants, needs, machine, gpus, f"{config.topology} on one machine")
    return Plan(table=table(needs, machine), kv_bytes=planned)


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
        planned = plan_kv(config, checkpoint, _workers(config), gpus)
        tenants = _tenants(config, checkpoint, planned, on_gpu=bool(gpus))
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


def _workers(config: Config) -> list[Worker]:
    """Of the topology, each with its own devices."""
    return [
        Worker(
            name=name,
            role=role,
            placement=config.placement.of(role).of_worker(int(name.rpartition("-")[2])),
        )
        for role, name in Topology.parse(config.topology).names()
        if role != "gateway"
    ]


def _tenants(
    config: Config, checkpoint: Checkpoint, kv_bytes: Mapping[str, int], *, on_gpu: bool
) -> list[Tenant]:
    """Every process of the cluster and its device, "" for the host. Divisions are checked."""
    found = [
        Tenant(
            name=name,
            device="",
            share=None,
            needs=needs_of(role, config, checkpoint, device="cpu"),
        )
        for role, name in Topology.parse(config.topology).names()
        if role == "gateway"
    ]
    for worker in _workers(config):
        name, tp = worker.name, worker.placement.tp
        refuse_division(checkpoint, tp)
        own = with_kv(config, kv_bytes.get(name))
        for rank, device in enumerate(worker.devices("cuda" if on_gpu else "cpu")):
            kind, _, _ = device.partition(":")
            found.append(
                Tenant(
                    name=f"{name} rank {rank}" if tp > 1 else name,
                    device=device if kind == "cuda" else "",
                    share=worker.placement.share,
                    needs=needs_of(worker.role, own, checkpoint, device=kind, rank=rank),
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
    """Those of this machine; none where the configuration wants the CPU."""
    return {} if config.device == "cpu" else gpus_here()
