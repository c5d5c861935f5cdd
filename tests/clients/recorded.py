"""The requests of load tools, as they send them; read from the sources of the versions named here.

`filled` puts the model's name and a picture in their places. Nothing else changes: a field that
epd would refuse has to fail here, not at a user.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

MODEL = "<the model>"
PICTURE = "<a picture>"
TEXT = "Tell me of the hills behind the town"
NUM_TOKENS = 12

CHAT = "/v1/chat/completions"
TEXTS = "/v1/completions"


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """One request; `reader` is how its tool reads the answer (see readers.py)."""

    tool: str
    reader: str
    body: Mapping[str, Any]
    path: str = CHAT
    headers: Mapping[str, str] = field(default_factory=dict)

    def filled(self, model: str, picture: str) -> dict[str, Any]:
        """The body to send."""
        text = json.dumps(self.body).replace(MODEL, model).replace(PICTURE, picture)
        body: dict[str, Any] = json.loads(text)
        return body


_IMAGE = {"type": "image_url", "image_url": {"url": PICTURE}}
_PROMPT = {"type": "text", "text": TEXT}
_USAGE = {"include_usage": True}
_OFTEN = {"include_usage": True, "continuous_usage_stats": True}


def _user(content: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": content}]


# vllm/benchmarks/lib/endpoint_request_func.py, datasets/datasets.py (random, random-mm)
_VLLM = {
    "model": MODEL,
    "messages": _user([_PROMPT]),
    "max_completion_tokens": NUM_TOKENS,
    "stream": True,
    "stream_options": _USAGE,
}
_VLLM_HEADERS = {
    "Content-Type": "application/json",
    "Authorization": "Bearer none",
    "x-request-id": "bench-0a1b2c3d-7",
}
_VLLM_TEXT = {
    "model": MODEL,
    "prompt": TEXT,
    "repetition_penalty": 1.0,
    "max_tokens": NUM_TOKENS,
    "logprobs": None,
    "stream": True,
    "stream_options": _USAGE,
    "ignore_eos": True,
}
# sglang/benchmark/serving.py, datasets/image.py
_SGLANG = {
    "model": MODEL,
    "messages": _user(TEXT),
    "max_completion_tokens": NUM_TOKENS,
    "stream": True,
    "temperature": 0.0,
    "ignore_eos": True,
}
_SGLANG_TEXT = {
    "model": MODEL,
    "prompt": TEXT,
    "best_of": 1,
    "max_tokens": NUM_TOKENS,
    "stream": True,
    "temperature": 0.0,
    "ignore_eos": True,
}
# guidellm/backends/openai/request_handlers.py
_GUIDELLM = {
    "model": MODEL,
    "stream": True,
    "stream_options": _OFTEN,
    "max_completion_tokens": NUM_TOKENS,
    "stop": None,
    "ignore_eos": True,
    "messages": _user([_PROMPT]),
}
# aiperf/endpoints/openai_chat.py, base_endpoint.py, transports/base_transports.py
_AIPERF = {
    "messages": _user([_PROMPT]),
    "model": MODEL,
    "stream": True,
    "max_completion_tokens": NUM_TOKENS,
    "ignore_eos": True,
    "stream_options": _USAGE,
}
_AIPERF_HEADERS = {
    "User-Agent": "aiperf/1.0",
    "X-Request-ID": "0d5ef1d0-6f0e-4c11-9c0a-6d4f0a0d2c55",
    "X-Correlation-ID": "b2f1e5e2-13c5-4d77-8c36-3a6f1c2f9a11",
    "Accept": "text/event-stream",
    "Content-Type": "application/json",
}
# evalscope/perf/plugin/api/openai_api.py, arguments.py
_EVALSCOPE = {
    "messages": _user(TEXT),
    "model": MODEL,
    "max_tokens": NUM_TOKENS,
    "min_tokens": NUM_TOKENS,
    "stream": True,
    "stream_options": _USAGE,
    "temperature": 0.0,
    "ignore_eos": True,
}
_EVALSCOPE_IDS = {
    "prompt": [70, 71, 72, 73],
    "model": MODEL,
    "max_tokens": NUM_TOKENS,
    "stream": True,
    "stream_options": _USAGE,
    "temperature": 0.0,
    "ignore_eos": True,
}

RECORDED = (
    Recorded(
        tool="vllm 0.33.0 bench serve",
        reader="vllm",
        body={**_VLLM, "temperature": 0.0, "ignore_eos": True},
        headers=_VLLM_HEADERS,
    ),
    Recorded(
        tool="vllm 0.33.0 bench serve, pictures",
        reader="vllm",
        body={**_VLLM, "messages": _user([_PROMPT, _IMAGE, _IMAGE]), "ignore_eos": True},
        headers=_VLLM_HEADERS,
    ),
    Recorded(tool="sglang 0.5.23 benchmark.serving", reader="sglang", body=_SGLANG),
    Recorded(
        tool="sglang 0.5.23 benchmark.serving, pictures",
        reader="sglang",
        body={**_SGLANG, "messages": _user([_IMAGE, _IMAGE, _PROMPT])},
    ),
    Recorded(
        tool="sglang 0.5.23 benchmark.serving, not streamed",
        reader="whole",
        body={**_SGLANG, "stream": False},
    ),
    Recorded(tool="guidellm 0.8.1 run", reader="guidellm", body=_GUIDELLM),
    Recorded(
        tool="guidellm 0.8.1 run, pictures",
        reader="guidellm",
        body={**_GUIDELLM, "messages": _user([_PROMPT, _IMAGE])},
    ),
    Recorded(
        tool="aiperf 0.13.0 profile",
        reader="aiperf",
        body={**_AIPERF, "messages": _user([_PROMPT, _IMAGE])},
        headers=_AIPERF_HEADERS,
    ),
    Recorded(
        tool="evalscope 1.14.1 perf",
        reader="evalscope",
        body=_EVALSCOPE,
        headers={"user-agent": "modelscope_bench"},
    ),
    Recorded(
        tool="vllm 0.33.0 bench serve, texts",
        reader="vllm_texts",
        path=TEXTS,
        body=_VLLM_TEXT,
        headers={"Authorization": "Bearer none", "x-request-id": "bench-0a1b2c3d-8"},
    ),
    Recorded(
        tool="sglang 0.5.23 benchmark.serving, texts",
        reader="sglang_texts",
        path=TEXTS,
        body=_SGLANG_TEXT,
    ),
    Recorded(
        tool="evalscope 1.14.1 perf, token ids",
        reader="evalscope_texts",
        path=TEXTS,
        body=_EVALSCOPE_IDS,
        headers={"user-agent": "modelscope_bench"},
    ),
)
