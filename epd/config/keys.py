"""Keys that clients show: of each only its hash is kept, from the moment that it is read."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any, Final

import yaml
from pydantic import Field, TypeAdapter, ValidationError, field_validator, model_validator

from epd.config.section import Section
from epd.errors import ConfigError

_KEY: Final = re.compile(r"[!-~]{1,256}")


class ApiKey(Section):
    """One key, its tenant and its limits. A bare string stands for a key with neither."""

    sha256: str = Field(
        pattern="^[0-9a-f]{64}$",
        description="SHA-256 of the key in hex; `key`, the key itself, may stand in its place",
    )
    tenant: str = Field(
        "",
        pattern=r"^[A-Za-z0-9._-]{0,64}$",
        description="keys of one tenant share caches; a key is a tenant of its own unless set",
    )
    max_requests: int | None = Field(None, ge=1, description="its requests at once before 429")
    tokens_per_minute: int | None = Field(
        None, ge=1, description="its tokens, of prompts and answers, before 429"
    )

    @model_validator(mode="before")
    @classmethod
    def _only_the_hash(cls, value: Any) -> Any:
        if isinstance(value, str):
            value = {"key": value}
        if not isinstance(value, dict) or "key" not in value:
            return value
        key = value["key"]
        if "sha256" in value:
            raise ValueError("give key or sha256, not both")
        if not isinstance(key, str) or not _KEY.fullmatch(key):
            raise ValueError("a key is a string of 1 to 256 visible ASCII characters")
        return {**_without(value, "key"), "sha256": hashlib.sha256(key.encode()).hexdigest()}


class ApiKeys(Section):
    """The part of the gateway's section that is about keys."""

    api_keys: tuple[ApiKey, ...] = Field(
        (), description="keys that clients must show one of; without any, anybody may ask"
    )
    api_keys_file: str = Field("", description="YAML file with more of them, in the same form")

    @field_validator("api_keys")
    @classmethod
    def _no_key_twice(cls, keys: tuple[ApiKey, ...]) -> tuple[ApiKey, ...]:
        if len({key.sha256 for key in keys}) < len(keys):
            raise ValueError("a key is there twice")
        return keys

    def all_keys(self) -> tuple[ApiKey, ...]:
        """Those of the file too. ConfigError never quotes what is in it."""
        if not self.api_keys_file:
            return self.api_keys
        try:
            found = _FILE.validate_python(
                yaml.safe_load(Path(self.api_keys_file).read_text(encoding="utf-8"))
            )
            return ApiKeys(api_keys=(*self.api_keys, *found)).api_keys
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            reason = type(error).__name__
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            reason = f"{'.'.join(map(str, first['loc']))} {first['msg']}".strip()
        raise ConfigError(
            f"gateway.api_keys_file: {self.api_keys_file} cannot be used: {reason}",
            param="gateway.api_keys_file",
        )


_FILE: Final = TypeAdapter(tuple[ApiKey, ...])


def _without(value: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: one for name, one in value.items() if name != key}
