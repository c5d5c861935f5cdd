"""From a cluster to its processes: the name, the host and the configuration of each. Pure."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import yaml

from epd.config import Config, load_config
from epd.errors import ConfigError
from launch.cluster import Cluster, Crew, Host, on_loopback

KEYS = "keys"
"""The folder of the CURVE keys, in the run directory of every host."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """One role. `share`: of the host's cores, one in so many, unless `config.threads` is set."""

    name: str
    role: str
    host: Host
    config: Config = field(repr=False)
    env: Mapping[str, str]
    share: int

    @property
    def text(self) -> str:
        """Its configuration file: the keys that were set, so that `load_config` gives `config`."""
        return yaml.safe_dump(
            self.config.model_dump(mode="json", exclude_unset=True), sort_keys=False
        )


def processes(cluster: Cluster) -> list[Process]:
    """All of them, gateways first. ConfigError where the configuration of one cannot work."""
    count: Counter[str] = Counter()
    found = []
    for host in cluster.hosts:
        each = [(role, crew) for role, crews in host.roles.items() for crew in crews]
        here: Counter[str] = Counter()
        for role, crew in each:
            for number in range(crew.count):
                name = f"{role}-{count[role]}"
                places = {"of_crew": number, "of_host": here[role]}
                found.append(_process(cluster, host, role, crew, name, **places))
                count[role] += 1
                here[role] += 1
    _check(cluster, found)
    return sorted(found, key=lambda process: process.role != "gateway")


def chosen(every: Sequence[Process], names: Iterable[str]) -> list[Process]:
    """Those of these names, in their own order; without names, all. ConfigError for strangers."""
    wanted = set(names)
    if strangers := wanted - {process.name for process in every}:
        known = ", ".join(process.name for process in every)
        raise ConfigError(f"no process is called {', '.join(sorted(strangers))}; there are {known}")
    return [process for process in every if not wanted or process.name in wanted]


def alone(every: Sequence[Process], some: Iterable[Process]) -> list[Process]:
    """Those of `some` without which no other process has their role."""
    count = Counter(process.role for process in every)
    return [process for process in some if count[process.role] == 1]


def by_host(some: Iterable[Process]) -> dict[str, list[Process]]:
    """In the order of the hosts' first ones."""
    found: dict[str, list[Process]] = {}
    for process in some:
        found.setdefault(process.host.host, []).append(process)
    return found


def _process(
    cluster: Cluster, host: Host, role: str, crew: Crew, name: str, *, of_crew: int, of_host: int
) -> Process:
    """`of_crew` and `of_host`: how many of its role are before it there."""
    gpu = {"CUDA_VISIBLE_DEVICES": crew.gpus[of_crew]} if crew.gpus else {}
    return Process(
        name=name,
        role=role,
        host=host,
        config=_config(cluster, host, role, crew, name, of_host),
        env={**host.env, **crew.env, **gpu},
        share=max(1, host.num_workers),
    )


def _config(cluster: Cluster, host: Host, role: str, crew: Crew, name: str, of_host: int) -> Config:
    """With its own of the devices that the configuration has for its role, as `epd serve` deals."""
    own = {"model": cluster.model, "name": name, "listen": _listen(cluster, host, role)}
    if role != "gateway":
        own["gateways"] = json.dumps(_gateways(cluster))
    if cluster.keys is not None:
        own["wire.curve_dir"] = KEYS
    settings = [*cluster.settings, *host.settings, *crew.settings]
    settings += [f"{key}={value}" for key, value in own.items()]
    config = load_config(cluster.config, settings)
    if role == "gateway" or not config.placement.of(role).devices:
        return config
    key = f"placement.{role}.devices"
    if crew.gpus:
        raise ConfigError(f"hosts: {name} has gpus {crew.gpus[0]!r} and {key}: one is enough")
    devices = config.placement.of(role).of_worker(of_host).devices
    return load_config(cluster.config, [*settings, f"{key}={json.dumps(devices)}"])


def _listen(cluster: Cluster, host: Host, role: str) -> str:
    """The gateway has the first two ports; workers take two each of the rest."""
    first, last = cluster.port_range
    if role == "gateway":
        return f"tcp://{_bracketed(host.place)}:{first}-{first + 1}"
    return f"tcp://{_bracketed(host.place)}:{first + 2}-{last}"


def _gateways(cluster: Cluster) -> list[str]:
    places = cluster.gateways or tuple(h.place for h in cluster.hosts if "gateway" in h.roles)
    return [f"tcp://{_bracketed(place)}:{cluster.port_range[0]}" for place in places]


def _bracketed(place: str) -> str:
    return f"[{place}]" if ":" in place else place


def _check(cluster: Cluster, found: Sequence[Process]) -> None:
    roles = {process.role for process in found}
    whole = [{"engine"}, {"encode", "fused"}, {"encode", "prefill", "decode"}]
    if not any(stages <= roles for stages in whole):
        raise ConfigError(
            f"hosts: {', '.join(sorted(roles))} serve no request: it takes encode, prefill and "
            "decode, or encode and fused, or engine"
        )
    leave = [host.place for host in cluster.hosts if not on_loopback(host.place)]
    open_ones = [p.name for p in found if p.config.wire.curve_dir is None]
    if leave and open_ones and not all(process.config.wire.insecure for process in found):
        raise ConfigError(
            f"keys: {leave[0]} is no loopback address, so {open_ones[0]} needs the cluster's CURVE "
            "keys (make them with `epd keys FOLDER`), or the setting wire.insecure=true"
        )
