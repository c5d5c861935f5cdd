"""From flags to values that are right, or an error that names the flag. Pure."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from epd.bench.datasets import KINDS, Shape
from epd.bench.flags import BACKENDS
from epd.bench.items import RESOLUTIONS
from epd.bench.metrics import GOALS
from epd.errors import ConfigError

SIZE = re.compile(r"([1-9]\d{0,4})x([1-9]\d{0,4})")
AT_LEAST_1 = (
    "num_prompts",
    "random_input_len",
    "random_output_len",
    "image_count",
    "video_count",
    "video_frames",
    "audio_count",
    "media_pool",
)
ABOVE_0 = ("video_fps", "audio_seconds", "trace_speed", "burstiness", "timeout_s")
SHARES = ("random_range_ratio", "media_hit_rate")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What a command says. `rates` are in requests per second."""

    url: str
    backend: str
    model: str | None
    headers: Mapping[str, str]
    extra: Mapping[str, Any]
    ignore_eos: bool
    timeout_s: float
    shape: Shape
    rates: Sequence[float]
    burstiness: float
    concurrency: int | None
    warmup: int
    goals_ms: Mapping[str, float]
    output: Path | None
    details: bool
    plot: Path | None
    tag: str | None
    quiet: bool
    arguments: Mapping[str, Any]

    @property
    def api(self) -> str:
        """chat or completions."""
        return BACKENDS[self.backend]


def options(args: argparse.Namespace, api_key: str | None = None) -> Options:
    """ConfigError names the flag. `api_key` is that of the environment."""
    _check_numbers(args)
    key = args.api_key or api_key
    hidden = ("api_key", "header", "handler", "command")
    return Options(
        url=_url(args),
        backend=args.backend,
        model=args.model,
        headers=_headers(args.header, key),
        extra=_extra(args.extra_request_body),
        ignore_eos=not args.disable_ignore_eos,
        timeout_s=args.timeout_s,
        shape=_shape(args),
        rates=args.request_rate,
        burstiness=args.burstiness,
        concurrency=args.max_concurrency,
        warmup=args.warmup_requests,
        goals_ms=_weights(args.goodput, "--goodput", GOALS),
        output=Path(args.output_file) if args.output_file else None,
        details=args.output_details,
        plot=Path(args.plot) if args.plot else None,
        tag=args.tag,
        quiet=args.disable_tqdm,
        arguments={name: value for name, value in vars(args).items() if name not in hidden},
    )


def _shape(args: argparse.Namespace) -> Shape:
    video = size(args.video_resolution, "--video-resolution")
    if any(side % 2 for side in video):
        raise ConfigError(f"--video-resolution: {args.video_resolution} has an odd side")
    mix = _weights(args.mix or [f"{kind}:1" for kind in KINDS], "--mix", KINDS)
    if not any(mix.values()):
        raise ConfigError("--mix: all weights are 0")
    return Shape(
        name=args.dataset_name,
        path=args.dataset_path,
        num=args.num_prompts,
        seed=str(args.seed),
        input_len=args.random_input_len,
        output_len=args.random_output_len,
        range_ratio=args.random_range_ratio,
        sharegpt_output_len=args.sharegpt_output_len,
        image_count=args.image_count,
        random_image_count=args.random_image_count,
        image_size=size(args.image_resolution, "--image-resolution"),
        image_format=args.image_format,
        image_content=args.image_content,
        video_count=args.video_count,
        video_size=video,
        video_frames=args.video_frames,
        video_fps=args.video_fps,
        audio_count=args.audio_count,
        audio_seconds=args.audio_seconds,
        hit_rate=args.media_hit_rate,
        pool=args.media_pool,
        trace_speed=args.trace_speed,
        mix=mix,
    )


def _check_numbers(args: argparse.Namespace) -> None:
    said = vars(args)
    for name in AT_LEAST_1:
        if said[name] < 1:
            raise ConfigError(f"{_flag(name)} has to be at least 1, not {said[name]}")
    for name in ABOVE_0:
        if not said[name] > 0:
            raise ConfigError(f"{_flag(name)} has to be above 0, not {said[name]:g}")
    for name in SHARES:
        if not 0 <= said[name] <= 1:
            raise ConfigError(f"{_flag(name)} has to be from 0 to 1, not {said[name]:g}")
    for name in ("max_concurrency", "sharegpt_output_len"):
        if said[name] is not None and said[name] < 1:
            raise ConfigError(f"{_flag(name)} has to be at least 1, not {said[name]}")
    if args.warmup_requests < 0:
        raise ConfigError(f"--warmup-requests has to be 0 or more, not {args.warmup_requests}")
    if not all(rate > 0 for rate in args.request_rate):
        raise ConfigError("--request-rate has to be above 0")


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _url(args: argparse.Namespace) -> str:
    url = args.base_url or f"http://{args.host}:{args.port}"
    if not re.match(r"https?://[^/]", url):
        raise ConfigError(f"--base-url: {url} does not begin with http:// or https:// and a host")
    return str(url).rstrip("/").removesuffix("/v1")


def size(text: str, flag: str) -> tuple[int, int]:
    """(width, height) of a name or of HEIGHTxWIDTH."""
    if text in RESOLUTIONS:
        return RESOLUTIONS[text]
    found = SIZE.fullmatch(text)
    if found is None:
        raise ConfigError(f"{flag}: {text} is none of {', '.join(RESOLUTIONS)}, nor HxW")
    return int(found[2]), int(found[1])


def _headers(given: Sequence[str], key: str | None) -> dict[str, str]:
    """`x-epd-path` asks an `epd` server for its stages; others do not know it."""
    headers = {"Content-Type": "application/json", "x-epd-path": "1"}
    if key:
        headers["Authorization"] = f"Bearer {key}"
    for header in given:
        name, equals, value = header.partition("=")
        if not equals or not name or not (name + value).isprintable():
            raise ConfigError(f"--header: {header} is not NAME=VALUE")
        headers[name] = value
    return headers


def _extra(text: str | None) -> dict[str, Any]:
    try:
        found = json.loads(text or "{}")
    except ValueError as error:
        raise ConfigError(f"--extra-request-body is no JSON: {error}") from error
    if not isinstance(found, dict):
        raise ConfigError("--extra-request-body is no JSON object")
    return found


def _weights(given: Sequence[str], flag: str, known: Sequence[str]) -> dict[str, float]:
    """name:number, each of `known` at most once."""
    found: dict[str, float] = {}
    for pair in given:
        name, _, number = pair.partition(":")
        if name not in known or name in found or not re.fullmatch(r"\d+(\.\d+)?", number):
            raise ConfigError(f"{flag}: {pair} is not NAME:NUMBER with one of {', '.join(known)}")
        found[name] = float(number)
    return found
