"""The flags, named as in the tools of sglang and vLLM where these have them."""

from __future__ import annotations

import argparse
import math

BACKENDS = {
    "openai-chat": "chat",
    "vllm-chat": "chat",
    "sglang-oai-chat": "chat",
    "openai": "completions",
    "vllm": "completions",
    "sglang-oai": "completions",
}
"""Names that people have in their scripts: all are one of OpenAI's two APIs."""

DATASETS = ("random", "sharegpt", "custom", "image", "video", "audio", "mixed", "trace")

DESCRIPTION = """\
Ask a running server, any with OpenAI's API, at a rate or with so many requests at once, and say how
it answered: throughput, time to the first token, time per token, latencies, failures by cause, and,
of an epd server, where the time went. Text, pictures, videos and sounds are made up, equal for an
equal seed. Tokens are counted by the server's usage.
"""
EXAMPLES = """\
examples:
  epd bench --num-prompts 100 --random-input-len 512 --random-output-len 64 --max-concurrency 8
  epd bench --dataset-name image --image-count 4 --image-resolution 720p --request-rate 2
  epd bench --dataset-name image --media-hit-rate 0.8 --request-rate 1 2 4 8 --plot plots
  epd bench --dataset-name mixed --mix text:8 image:2 video:1 audio:1 --goodput ttft:2000 tpot:100
  epd bench --dataset-name trace --dataset-path AzureLMMInferenceTrace_multimodal.csv.gz
"""


def add_bench_flags(parser: argparse.ArgumentParser) -> None:
    """All of them."""
    _add_server(parser)
    _add_data(parser)
    _add_items(parser)
    _add_load(parser)
    _add_results(parser)


def _add_server(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("the server").add_argument
    add("--base-url", metavar="URL", help="in front of /v1 (default http://HOST:PORT)")
    add("--host", default="127.0.0.1", help="(default 127.0.0.1)")
    add("--port", type=int, default=8000, help="(default 8000)")
    add("--backend", default="openai-chat", choices=BACKENDS, help="chats or text completions")
    add("--model", help="as /v1/models names it (default the first there)")
    add("--api-key", metavar="KEY", help="(default the variable OPENAI_API_KEY)")
    add("--header", nargs="+", default=[], metavar="NAME=VALUE", help="with every request")
    add("--extra-request-body", metavar="JSON", help="fields that go into every request")
    add(
        "--disable-ignore-eos",
        action="store_true",
        help="answers may end before their length; for servers that do not know ignore_eos",
    )
    add("--timeout-s", type=float, default=3600.0, help="of one request (default 3600)")


def _add_data(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("what is asked").add_argument
    add("--dataset-name", default="random", choices=DATASETS, help="(default random, text alone)")
    add(
        "--dataset-path",
        metavar="FILE",
        help="of sharegpt (JSON), custom (JSONL: messages, prompt or conversations) and trace "
        "(CSV: TIMESTAMP, NumImages, ContextTokens, GeneratedTokens)",
    )
    add("--num-prompts", type=int, default=1000, help="requests (default 1000)")
    add("--seed", type=int, default=1, help="of everything that is drawn (default 1)")
    add("--random-input-len", type=int, default=1024, help="tokens of text (default 1024)")
    add("--random-output-len", type=int, default=1024, help="of the answer (default 1024)")
    add(
        "--random-range-ratio",
        type=float,
        default=0.0,
        help="both lengths are drawn from this share of them up to them, as in sglang's tool: 0 "
        "is anything from 1 (default), 1 is always the same",
    )
    add("--sharegpt-output-len", type=int, help="instead of the recorded answers' lengths")
    add("--trace-speed", type=float, default=1.0, help="2 replays twice as fast (default 1)")
    add(
        "--mix",
        nargs="+",
        metavar="KIND:WEIGHT",
        help="of mixed: text, image, video, audio (default one of each)",
    )


def _add_items(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("pictures, videos, sounds").add_argument
    add("--image-count", type=int, default=1, help="pictures per request (default 1)")
    add("--random-image-count", action="store_true", help="from 1 to --image-count of them")
    add("--image-resolution", default="1080p", help="4k, 1080p, 720p, 360p or HxW (default 1080p)")
    add("--image-format", default="jpeg", choices=("jpeg", "png"), help="(default jpeg)")
    add(
        "--image-content",
        default="random",
        choices=("random", "smooth", "blank"),
        help="noise (default), or what compresses as photographs do, or one color",
    )
    add("--video-count", type=int, default=1, help="videos per request (default 1)")
    add("--video-resolution", default="360p", help="as of pictures (default 360p)")
    add("--video-frames", type=int, default=16, help="of a video (default 16)")
    add("--video-fps", type=float, default=8.0, help="of a video (default 8)")
    add("--audio-count", type=int, default=1, help="sounds per request (default 1)")
    add("--audio-seconds", type=float, default=5.0, help="of a sound (default 5)")
    add(
        "--media-hit-rate",
        type=float,
        default=0.0,
        metavar="SHARE",
        help="so many of all items were sent before, by the warm-up (default 0)",
    )
    add("--media-pool", type=int, default=8, help="different ones of these, by kind (default 8)")


def _add_load(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("how it is asked").add_argument
    add(
        "--request-rate",
        type=float,
        nargs="+",
        default=[math.inf],
        metavar="PER_S",
        help="requests per second; inf sends all at once (default); several are measured one after "
        "the other",
    )
    add(
        "--burstiness",
        type=float,
        default=1.0,
        help="shape of the gaps between requests: 1 is Poisson (default), less comes in bursts",
    )
    add("--max-concurrency", type=int, help="requests at the same time (default any number)")
    add("--warmup-requests", type=int, default=1, help="before anything is measured (default 1)")


def _add_results(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("results").add_argument
    add(
        "--goodput",
        nargs="+",
        default=[],
        metavar="GOAL:MS",
        help="ttft:MS tpot:MS e2el:MS: count the requests that meet all of these",
    )
    add("--output-file", metavar="FILE", help="append one JSON object per run")
    add(
        "--output-details",
        action="store_true",
        help="with every request in it: lengths, texts, errors, the moment of every token, stages",
    )
    add(
        "--plot",
        metavar="FOLDER",
        help="PNGs: latencies, throughput against latency, stages of requests (needs epd[bench])",
    )
    add("--tag", help="stands in the JSON object")
    add("--disable-tqdm", action="store_true", help="no progress on stderr")
