"""A cluster on several machines as a file: which hosts there are, and which roles run on each."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from epd.config import Section
from epd.errors import ConfigError

Role = Literal["gateway", "encode", "prefill", "decode", "fused", "engine"]

_PORTS = re.compile(r"(\d{1,5})-(\d{1,5})")


class Crew(Section):
    """Equal processes of one role on one host. A bare number stands for a crew of that many."""

    count: int = Field(1, ge=1, description="how many processes")
    gpus: tuple[str, ...] = Field(
        (),
        description="GPUs of the host, as CUDA_VISIBLE_DEVICES names them: one word per process, "
        'such as "0", or "0,1" for a process with two',
    )
    settings: tuple[str, ...] = Field((), description="key=value, as --set takes them")
    env: dict[str, str] = Field({}, description="their environment")

    @model_validator(mode="before")
    @classmethod
    def _count_alone(cls, value: Any) -> Any:
        return {"count": value} if isinstance(value, int) else value

    @model_validator(mode="after")
    def _a_gpu_for_each(self) -> Crew:
        if self.gpus and len(self.gpus) != self.count:
            raise ValueError(
                f"gpus: {self.count} processes and {len(self.gpus)} words: one word for each"
            )
        return self


class Host(Section):
    """One machine."""

    host: str = Field(min_length=1, pattern=r"^[^-\s]\S*$", description="what ssh calls it")
    address: str = Field(
        "", description="where its roles listen, a name or a number; `host` unless set"
    )
    roles: dict[Role, tuple[Crew, ...]] = Field(
        description="how many processes of each role; a list where they are not all equal"
    )
    settings: tuple[str, ...] = Field((), description="key=value for all of them")
    env: dict[str, str] = Field({}, description="environment of all of them")

    @field_validator("roles", mode="before")
    @classmethod
    def _one_crew(cls, roles: Any) -> Any:
        if not isinstance(roles, dict):
            return roles
        return {role: each if isinstance(each, list) else [each] for role, each in roles.items()}

    @property
    def place(self) -> str:
        """What the others connect to."""
        return self.address or self.host.rpartition("@")[2]

    @property
    def num_workers(self) -> int:
        """Processes that compute, and share the host's cores."""
        return sum(self.count(role) for role in self.roles if role != "gateway")

    def count(self, role: Role) -> int:
        """Its processes of this role."""
        return sum(crew.count for crew in self.roles.get(role, ()))


class Cluster(Section):
    """Everything. Paths are those of the hosts, but for `config` and `keys`."""

    model: str = Field(description="folder of the checkpoint, the same path on every host")
    config: Path | None = Field(None, description="configuration of all roles, beside this file")
    settings: tuple[str, ...] = Field((), description="key=value for all roles")
    keys: Path | None = Field(None, description="folder that `epd keys` made, beside this file")
    hosts: tuple[Host, ...] = Field(min_length=1, description="the machines")
    gateways: tuple[str, ...] = Field(
        (), description="names or numbers that workers find gateways by; their hosts' unless set"
    )
    ports: str = Field("7400-7499", description="on every host: two for each process")
    python: str = Field("python3", description="on the hosts, with epd installed")
    run_dir: str = Field(
        "epd-run", description="folder on the hosts; from the login folder unless it begins with /"
    )
    ssh: tuple[str, ...] = Field(
        ("ssh", "-o", "BatchMode=yes", "-o", "ConnectTimeout=10"),
        min_length=1,
        description="program and flags; the host and a command follow",
    )
    parallel: int = Field(8, ge=1, description="hosts spoken to at once")
    start_timeout_s: int = Field(600, gt=0, description="every process is ready by then")

    @property
    def port_range(self) -> tuple[int, int]:
        """First and last."""
        first, last = self.ports.split("-")
        return int(first), int(last)

    @field_validator("ports")
    @classmethod
    def _are_ports(cls, text: str) -> str:
        found = _PORTS.fullmatch(text)
        if found is None or not 0 < int(found[1]) < int(found[2]) <= 65535:
            raise ValueError(f"{text!r} is no range of ports, such as 7400-7499")
        return text

    @field_validator("model")
    @classmethod
    def _is_absolute(cls, text: str) -> str:
        if not text.startswith("/"):
            raise ValueError(f"{text!r} is no absolute path, so the hosts would not agree on it")
        return text

    @model_validator(mode="after")
    def _fits(self) -> Cluster:
        names = [host.host for host in self.hosts]
        if twice := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"hosts: {', '.join(sorted(twice))} is there twice")
        if not any("gateway" in host.roles for host in self.hosts):
            raise ValueError("hosts: none has a gateway")
        first, last = self.port_range
        for host in self.hosts:
            if (gateways := host.count("gateway")) > 1:
                raise ValueError(f"{host.host}: {gateways} gateways; one on each host")
            need, have = 2 * (host.num_workers + 1), last - first + 1
            if need > have:
                raise ValueError(
                    f"ports: {host.host} needs 2 x ({host.num_workers} workers + 1 gateway) = "
                    f"{need}, and {self.ports} has {have}"
                )
        return self


def read_cluster(path: Path, overrides: Sequence[str] = ()) -> Cluster:
    """Of a YAML file; `overrides` go behind its `settings`. ConfigError names key and file."""
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"cannot read {path}: {error}") from None
    try:
        cluster = Cluster.model_validate(tree)
    except ValidationError as error:
        lines = (
            f"{path}: {'.'.join(map(str, one['loc']))}: {one['msg'].removeprefix('Value error, ')}"
            for one in error.errors(include_url=False)
        )
        raise ConfigError("\n".join(lines).replace(": : ", ": ")) from None
    beside = {
        key: path.parent / place
        for key in ("config", "keys")
        if (place := getattr(cluster, key)) is not None
    }
    return cluster.model_copy(update={**beside, "settings": (*cluster.settings, *overrides)})


def on_loopback(place: str) -> bool:
    """Whether only its own machine reaches it."""
    try:
        return ipaddress.ip_address(place).is_loopback
    except ValueError:
        return place == "localhost"
