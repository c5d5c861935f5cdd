"""From a YAML file and `key=value` overrides to a Config; every error names the key and its place.

Reads the one file and nothing else: no environment, no network, no device, no model.
"""

from __future__ import annotations

import difflib
from collections.abc import Hashable, Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from epd.config.sections import Config
from epd.errors import ConfigError


def load_config(path: str | Path | None = None, overrides: Iterable[str] = ()) -> Config:
    """The configuration of `path` (None: the defaults) with the overrides applied in order."""
    tree = _read(Path(path)) if path is not None else {}
    origin: dict[tuple[str, ...], str] = {}
    for override in overrides:
        keys, value = _parse_override(override)
        _set(tree, keys, value, override)
        origin[keys] = f"--set {override}"
    return _validate(tree, origin, str(path) if path is not None else "the configuration")


def dump_config(config: Config) -> str:
    """The whole configuration as YAML that load_config reads back to an equal one."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)


class _StrictLoader(yaml.SafeLoader):
    """A key that stands twice is an error, not a silent choice of the second."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[object] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, Hashable) or key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key!r} is there twice or no plain word", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


def _read(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the configuration {path}: {error}") from error
    try:
        tree = yaml.load(text, Loader=_StrictLoader)
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not valid YAML: {error}") from error
    if tree is None:
        return {}
    if not isinstance(tree, dict) or not all(isinstance(key, str) for key in tree):
        raise ConfigError(f"{path} holds no mapping of keys to values")
    return tree


def _parse_override(override: str) -> tuple[tuple[str, ...], Any]:
    """Split "language.block_size=32"; the value is YAML, so 32 is a number and [a, b] a list."""
    key, equals, text = override.partition("=")
    keys = tuple(part.strip() for part in key.split("."))
    if not equals or not all(keys):
        raise ConfigError(f"--set {override}: expected key=value, for example dtype=float32")
    try:
        return keys, yaml.load(text, Loader=_StrictLoader)
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {override}: the value is not valid YAML: {error}") from error


def _set(tree: dict[str, Any], keys: Sequence[str], value: Any, override: str) -> None:
    for key in keys[:-1]:
        if tree.get(key) is None:
            tree[key] = {}
        tree = tree[key]
        if not isinstance(tree, dict):
            raise ConfigError(f"--set {override}: {key} is a value, not a section")
    tree[keys[-1]] = value


def _validate(tree: dict[str, Any], origin: dict[tuple[str, ...], str], place: str) -> Config:
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        lines = [
            _sentence(one["loc"], one["type"], one["msg"], origin, place)
            for one in error.errors(include_url=False)
        ]
        raise ConfigError("\n".join(lines)) from error


def _sentence(
    loc: tuple[int | str, ...],
    kind: str,
    text: str,
    origin: dict[tuple[str, ...], str],
    place: str,
) -> str:
    """One error in words: which key, what is wrong, and where it was set."""
    if not loc:  # of several keys together, which it names
        return f"{place}: {text.removeprefix('Value error, ')}"
    keys = tuple(str(part) for part in loc)
    above_or_below = [at for at in origin if at[: len(keys)] == keys[: len(at)]]
    where = origin[max(above_or_below, key=len)] if above_or_below else place
    if kind == "extra_forbidden":
        text = "unknown key" + _suggestion(keys)
    return f"{where}: {'.'.join(keys)}: {text.removeprefix('Value error, ')}"


def _suggestion(keys: tuple[str, ...]) -> str:
    section: type[BaseModel] = Config
    for key in keys[:-1]:
        annotation = section.model_fields[key].annotation
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return ""
        section = annotation
    close = difflib.get_close_matches(keys[-1], section.model_fields, n=1)
    return f" (did you mean {close[0]}?)" if close else ""
