"""Keyword arguments that users of other engines know, and the configuration keys that they set."""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from epd.errors import ConfigError
from epd.types import Modality

KEYS = {
    "allowed_local_media_path": "media.allowed_local_path",
    "allowed_media_domains": "media.allowed_domains",
    "block_size": "language.block_size",
    "chat_template": "gateway.chat_template",
    "device": "device",
    "dtype": "dtype",
    "enable_mm_embeds": "media.enable_embeds",
    "enable_prefix_caching": "language.prefix_cache",
    "limit_mm_per_prompt": "media",
    "max_model_len": "language.max_context",
    "max_num_batched_tokens": "language.max_step_tokens",
    "max_num_seqs": "language.max_running",
    "media_io_kwargs": "media.io_kwargs",
    "mm_processor_kwargs": "media.processor_kwargs",
    "served_model_name": "gateway.served_model_name",
    "trust_remote_code": "trust_remote_code",
}

NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "disable_log_stats": (True, False),
    "enforce_eager": (True, False),
    "pipeline_parallel_size": (1,),
    "tensor_parallel_size": (1,),
    "tokenizer_mode": ("auto",),
}
"""Known elsewhere, without a meaning here: accepted with values that change no answer."""

_DTYPES = {"half": "float16", "float": "float32"}


def settings_of(options: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of the configuration that these arguments set; None sets nothing.

    ConfigError for one that is not known.
    """
    found: dict[str, Any] = {}
    for name, value in options.items():
        if name in KEYS:
            if value is not None:
                found |= _READERS.get(name, _plain)(name, value)
        elif name not in NEUTRAL:
            close = difflib.get_close_matches(name, KEYS, n=1)
            hint = f" (did you mean {close[0]}?)" if close else ""
            raise ConfigError(f"unknown argument {name}{hint}; settings sets any key", param=name)
        elif value is not None and value not in NEUTRAL[name]:
            raise ConfigError(f"{name}={value!r} is not supported", param=name)
    return found


def overrides(settings: Mapping[str, Any]) -> Iterator[str]:
    """Each as `--set` takes it."""
    for key, value in settings.items():
        yield f"{key}={json.dumps(value, default=_as_text)}"


def _plain(name: str, value: Any) -> dict[str, Any]:
    return {KEYS[name]: value}


def _limits(name: str, value: Any) -> dict[str, Any]:
    """By modality: a number, or an object whose `count` it is."""
    if not isinstance(value, Mapping):
        raise ConfigError(f"{name} must map modalities to numbers", param=name)
    found = {}
    for kind, most in value.items():
        if kind not in list(Modality):
            raise ConfigError(f"{name}: {kind!r} is none of {', '.join(Modality)}", param=name)
        count = most.get("count") if isinstance(most, Mapping) else most
        found[f"media.{kind}.per_request"] = count
    return found


def _dtype(name: str, value: Any) -> dict[str, Any]:
    """A word, or torch's own object."""
    word = str(value).removeprefix("torch.")
    return {KEYS[name]: _DTYPES.get(word, word)}


def _domains(name: str, value: Any) -> dict[str, Any]:
    return {KEYS[name]: [value] if isinstance(value, str) else list(value)}


def _names(name: str, value: Any) -> dict[str, Any]:
    """One name, or several of which the first is shown."""
    first, *others = [value] if isinstance(value, str) else value
    return {KEYS[name]: first, **({"gateway.other_model_names": others} if others else {})}


def _trust(name: str, value: Any) -> dict[str, Any]:
    """What nobody asks for is not said."""
    return {KEYS[name]: True} if value else {}


def _as_text(value: object) -> str:
    if isinstance(value, Path | Modality):
        return str(value)
    raise ConfigError(f"{value!r} is no value of a setting")


_READERS: Mapping[str, Callable[[str, Any], dict[str, Any]]] = {
    "allowed_media_domains": _domains,
    "dtype": _dtype,
    "limit_mm_per_prompt": _limits,
    "served_model_name": _names,
    "trust_remote_code": _trust,
}
