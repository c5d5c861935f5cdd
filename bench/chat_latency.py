"""How long until the first token of a chat, and how fast do tokens come after it?

Sends requests one after another to a running server, so it measures latency, not capacity:

    python bench/chat_latency.py --url http://127.0.0.1:8000/v1 --image cat.jpg --requests 20

A table goes to stderr; the last line of stdout is one JSON object with every arrival time.
"""

from __future__ import annotations

import argparse
import base64
import json
import mimetypes
import platform
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import httpx


def main() -> int:
    """Measure and report; 1 when a request failed."""
    args = parse_args()
    with httpx.Client(base_url=args.url.rstrip("/"), timeout=args.timeout_s) as client:
        model = args.model or client.get("/models").raise_for_status().json()["data"][0]["id"]
        body = {
            "model": model,
            "messages": [{"role": "user", "content": content(args.prompt, args.image)}],
            "max_tokens": args.max_tokens,
            "temperature": 0,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        try:
            for _ in range(args.warmup):
                measure(client, body)
            runs = [measure(client, body) for _ in range(args.requests)]
        except httpx.HTTPError as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
            return 1
    report(args, model, runs)
    return 0


def parse_args() -> argparse.Namespace:
    """The workload."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--url", default="http://127.0.0.1:8000/v1")
    parser.add_argument("--model", help="the first that the server has unless given")
    parser.add_argument("--prompt", default="Describe what you see.")
    parser.add_argument("--image", type=Path, action="append", default=[], help="may be repeated")
    parser.add_argument("--max-tokens", type=int, default=32)
    parser.add_argument("--requests", type=int, default=10)
    parser.add_argument("--warmup", type=int, default=1)
    parser.add_argument("--timeout-s", type=float, default=600.0)
    return parser.parse_args()


def content(prompt: str, images: list[Path]) -> list[dict[str, Any]]:
    """The user's message: the pictures, inline, then the text."""
    parts: list[dict[str, Any]] = []
    for image in images:
        kind = mimetypes.guess_type(image)[0] or "application/octet-stream"
        url = f"data:{kind};base64,{base64.b64encode(image.read_bytes()).decode()}"
        parts.append({"type": "image_url", "image_url": {"url": url}})
    return [*parts, {"type": "text", "text": prompt}]


def measure(client: httpx.Client, body: dict[str, Any]) -> dict[str, Any]:
    """One streamed request: seconds from sending to each piece of text, and the token counts."""
    arrivals: list[float] = []
    usage: dict[str, Any] = {}
    start = time.perf_counter()
    with client.stream("POST", "/chat/completions", json=body) as response:
        if response.is_error:
            response.read()
            raise httpx.HTTPError(f"{response.status_code} {response.text.strip()}")
        for line in response.iter_lines():
            if not line.startswith("data: ") or line == "data: [DONE]":
                continue
            event = json.loads(line.removeprefix("data: "))
            if "error" in event:
                raise httpx.HTTPError(json.dumps(event["error"]))
            usage = event.get("usage") or usage
            if any(choice["delta"].get("content") for choice in event["choices"]):
                arrivals.append(time.perf_counter() - start)
    return {"total_s": time.perf_counter() - start, "arrivals_s": arrivals, "usage": usage}


def report(args: argparse.Namespace, model: str, runs: list[dict[str, Any]]) -> None:
    """Medians for people, everything for programs."""
    first = [run["arrivals_s"][0] for run in runs if run["arrivals_s"]]
    rates = [
        (run["usage"]["completion_tokens"] - 1) / (run["total_s"] - run["arrivals_s"][0])
        for run in runs
        if run["arrivals_s"] and run["usage"].get("completion_tokens", 0) > 1
    ]
    for name, values, unit in (("first token", first, "s"), ("then", rates, "tokens/s")):
        if values:
            print(
                f"{name:12} median {statistics.median(values):9.3f} {unit}   "
                f"min {min(values):9.3f}   max {max(values):9.3f}",
                file=sys.stderr,
            )
    result = {
        "question": "chat latency",
        "machine": platform.platform(),
        "python": platform.python_version(),
        "model": model,
        "workload": {key: str(value) for key, value in vars(args).items()},
        "runs": runs,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    sys.exit(main())
