"""Flags about media that users of other servers know, and the configuration keys that they set."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from typing import Any

from epd.errors import ConfigError


def add_media_flags(parser: argparse.ArgumentParser) -> None:
    """To a command that has `--set`, which wins over them."""
    media = parser.add_argument_group("media")
    media.add_argument(
        "--limit-mm-per-prompt",
        metavar="JSON",
        help='most items of a kind in one request: \'{"image": 8, "video": 1}\'',
    )
    media.add_argument(
        "--enable-mm-embeds",
        action="store_true",
        help="take ready-made embeddings from clients",
    )
    media.add_argument(
        "--allowed-local-media-path",
        metavar="DIR",
        help="folder that file: URLs may read; none unless given",
    )
    media.add_argument(
        "--allowed-media-domains",
        metavar="A,B",
        help="hosts that media may be fetched from; all public ones unless given",
    )
    media.add_argument(
        "--media-io-kwargs",
        metavar="JSON",
        help='for requests that say nothing else: \'{"video": {"num_frames": 16}}\'',
    )
    media.add_argument(
        "--mm-processor-kwargs",
        metavar="JSON",
        help="for requests that say nothing else: '{\"max_pixels\": 1003520}'",
    )


def media_settings(args: argparse.Namespace) -> list[str]:
    """The flags that were given, each as key=value. ConfigError for what is no JSON object."""
    found: list[str] = []
    if args.limit_mm_per_prompt is not None:
        limits = _object("--limit-mm-per-prompt", args.limit_mm_per_prompt)
        found += [_setting(f"media.{kind}.per_request", most) for kind, most in limits.items()]
    if args.enable_mm_embeds:
        found.append(_setting("media.enable_embeds", True))
    if args.allowed_local_media_path is not None:
        found.append(_setting("media.allowed_local_path", args.allowed_local_media_path))
    if args.allowed_media_domains is not None:
        domains = [name.strip() for name in args.allowed_media_domains.split(",")]
        found.append(_setting("media.allowed_domains", [name for name in domains if name]))
    if args.media_io_kwargs is not None:
        io = _object("--media-io-kwargs", args.media_io_kwargs)
        found.append(_setting("media.io_kwargs", io))
    if args.mm_processor_kwargs is not None:
        processor = _object("--mm-processor-kwargs", args.mm_processor_kwargs)
        found.append(_setting("media.processor_kwargs", processor))
    return found


def _setting(key: str, value: Any) -> str:
    return f"{key}={json.dumps(value)}"


def _object(flag: str, text: str) -> Mapping[str, Any]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise ConfigError(f"{flag}: not valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise ConfigError(f"{flag}: must be a JSON object")
    return value
