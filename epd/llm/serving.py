"""`serve()`: from a model and a few words to a cluster that runs."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from epd.llm.options import overrides, settings_of
from epd.llm.server import Server


def serve(
    model: str | Path | None = None,
    *,
    topology: str | None = None,
    host: str | None = None,
    port: int = 0,
    api_key: str | Sequence[str] = (),
    config: str | Path | None = None,
    settings: Mapping[str, Any] | None = None,
    **options: Any,
) -> Server:
    """Start what `epd serve` starts, on a free port of this machine, and come back at once.

    `model` is a folder; without one it is the embedded random model. Clients must show an `api_key`
    if there is any. `config` is a YAML file;
    `settings` has keys of it, such as {"language.kv_tokens": 4096}, which win over `options`
    (see KEYS in options.py), and these over the file.
    """
    return Server(
        argv(
            model,
            topology=topology,
            host=host,
            port=port,
            config=config,
            settings={**settings_of(options), **_hashed(api_key), **(settings or {})},
        )
    )


def _hashed(keys: str | Sequence[str]) -> dict[str, Any]:
    """A command line is no place for the keys themselves: everybody may read it."""
    each = [keys] if isinstance(keys, str) else keys
    hashes = [{"sha256": hashlib.sha256(key.encode()).hexdigest()} for key in each]
    return {"gateway.api_keys": hashes} if hashes else {}


def argv(
    model: str | Path | None,
    *,
    topology: str | None,
    host: str | None,
    port: int,
    config: str | Path | None,
    settings: Mapping[str, Any],
) -> list[str]:
    """The command line behind `epd serve`."""
    found = [] if model is None else [str(model)]
    flags = {"--topology": topology, "--host": host, "--port": port, "--config": config}
    for flag, value in flags.items():
        if value is not None:
            found += [flag, str(value)]
    for override in overrides(settings):
        found += ["--set", override]
    return found
