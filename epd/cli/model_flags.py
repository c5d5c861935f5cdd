"""Flags about the model that users of other servers know, and the configuration keys they set."""

from __future__ import annotations

import argparse
import json
import re
from typing import Any

from epd.errors import ConfigError

_LENGTH = re.compile(r"(?P<number>\d+(?:\.\d+)?)(?P<unit>[kKmM]?)")
_UNITS = {"": 1, "k": 1000, "K": 1024, "m": 1000**2, "M": 1024**2}


def add_model_flags(parser: argparse.ArgumentParser) -> None:
    """To a command that has `--set`, which wins over them."""
    model = parser.add_argument_group("model")
    model.add_argument(
        "--served-model-name",
        nargs="+",
        metavar="NAME",
        help="what clients call the model (default the folder's name); more names are others "
        "for it",
    )
    model.add_argument(
        "--max-model-len",
        metavar="N",
        help="most tokens of prompt and output together, as 4096, 32k or 32K (default the "
        "checkpoint's limit)",
    )
    model.add_argument(
        "--chat-template",
        metavar="FILE",
        help="Jinja template in place of the checkpoint's own",
    )
    model.add_argument(
        "--trust-request-chat-template",
        action="store_true",
        help="let requests bring a chat template of their own",
    )
    model.add_argument(
        "--tensor-parallel-size",
        type=int,
        metavar="N",
        help="processes, each on its own GPU, that one prefill, decode or fused worker consists of",
    )
    model.add_argument(
        "--load-format",
        choices=("auto", "dummy"),
        help="dummy: random weights of the model's real shapes, for measuring without any",
    )
    model.add_argument(
        "--trust-remote-code",
        action="store_true",
        help="let processors be loaded whose code lies in the checkpoint's folder",
    )


def model_settings(args: argparse.Namespace) -> list[str]:
    """The flags that were given, each as key=value. ConfigError for what is no number."""
    found: list[str] = []
    if args.served_model_name is not None:
        name, *others = args.served_model_name
        found.append(_setting("gateway.served_model_name", name))
        found.append(_setting("gateway.other_model_names", others))
    if args.max_model_len is not None:
        found.append(_setting("language.max_context", _length(args.max_model_len)))
    if args.chat_template is not None:
        found.append(_setting("gateway.chat_template", args.chat_template))
    if args.trust_request_chat_template:
        found.append(_setting("gateway.trust_request_chat_template", True))
    if args.tensor_parallel_size is not None:
        for role in ("prefill", "decode", "fused", "engine"):
            found.append(_setting(f"placement.{role}.tp", args.tensor_parallel_size))
    if args.load_format is not None:
        found.append(_setting("load_format", args.load_format))
    if args.trust_remote_code:
        found.append(_setting("trust_remote_code", True))
    return found


def _setting(key: str, value: Any) -> str:
    return f"{key}={json.dumps(value)}"


def _length(text: str) -> int:
    """Small letters are decimal units, large ones binary."""
    match = _LENGTH.fullmatch(text)
    if match is None:
        raise ConfigError(f"--max-model-len: {text!r} is no number of tokens")
    return int(float(match["number"]) * _UNITS[match["unit"]])
