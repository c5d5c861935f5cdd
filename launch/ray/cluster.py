"""A cluster for Ray as a file: how many of each role, and what one of them takes of a node."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, ValidationError, model_validator

from epd.config import Config, Section, load_config
from epd.errors import ConfigError

Role = Literal["encode", "prefill", "decode", "fused", "engine"]


class Actors(Section):
    """Of one role; a bare number stands for so many with one core each."""

    count: int = Field(1, ge=0, description="how many")
    cpus: int = Field(1, ge=1, description="cores of one, and its threads")
    gpus: float = Field(0.0, ge=0, description="GPUs of one")
    resources: dict[str, float] = Field({}, description="Ray's own resources, to choose nodes by")
    settings: tuple[str, ...] = Field((), description="key=value")

    @model_validator(mode="before")
    @classmethod
    def _count_alone(cls, value: Any) -> Any:
        return {"count": value} if isinstance(value, int) else value


class RayCluster(Section):
    """Everything. The one gateway runs on Ray's head node, whose address does not change."""

    model: str = Field(description="folder of the checkpoint, the same path on every node")
    config: Path | None = Field(None, description="configuration of all roles, beside this file")
    settings: tuple[str, ...] = Field((), description="key=value for all roles")
    keys: Path | None = Field(None, description="folder that `epd keys` made, beside this file")
    roles: dict[Role, Actors] = Field(min_length=1, description="the workers")
    ports: str = Field("7400-7499", pattern=r"^\d+-\d+$", description="on every node")
    python: str = Field("python3", description="on the nodes, with epd installed")
    namespace: str = Field("epd", description="Ray's, so that names are ours")
    start_timeout_s: int = Field(600, gt=0, description="every actor is ready by then")

    def common(self) -> tuple[str, ...]:
        """key=value that every role has."""
        return (*self.settings, f"model={self.model}")

    def wanted(self) -> dict[str, tuple[str, Actors]]:
        """Role and needs of every actor, by name; the gateway first."""
        found: dict[str, tuple[str, Actors]] = {"gateway-0": ("gateway", Actors())}
        for role, actors in self.roles.items():
            for number in range(actors.count):
                found[f"{role}-{number}"] = (role, actors)
        return found

    def configuration(self) -> str:
        """The text of `config`; empty without one."""
        return "" if self.config is None else self.config.read_text(encoding="utf-8")

    def checked(self) -> Config:
        """What all roles have in common. ConfigError where it cannot work."""
        for actors in self.roles.values():
            load_config(self.config, [*self.common(), *actors.settings])
        return load_config(self.config, self.common())


def read_ray_cluster(path: Path) -> RayCluster:
    """ConfigError names key and file."""
    try:
        found = RayCluster.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"cannot read {path}: {error}") from None
    except ValidationError as error:
        lines = (
            f"{path}: {'.'.join(map(str, one['loc']))}: {one['msg']}"
            for one in error.errors(include_url=False)
        )
        raise ConfigError("\n".join(lines)) from None
    beside = {
        key: path.parent / place
        for key in ("config", "keys")
        if (place := getattr(found, key)) is not None
    }
    return found.model_copy(update=beside)
