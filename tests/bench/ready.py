"""A run that is written here, with numbers that can be checked by hand."""

from __future__ import annotations

from epd.bench.load import Run
from epd.bench.records import Record
from epd.bench.result import Asked

PATH = {
    "ms": {"layouts": 20.0, "admitted": 30.0, "first_token": 80.0, "total": 280.0},
    "items": [
        {"cached": False, "ms": {"fetch": 1.0, "encode": 10.0}},
        {"cached": True, "ms": {}},
    ],
    "prefill": {"ms": {"queue": 5.0, "prefill": 40.0}},
    "decode": {"ms": {"decode": 200.0}},
}
ASKED = Asked(
    backend="openai-chat",
    dataset_name="image",
    model="m",
    url="http://127.0.0.1:8000",
    num_prompts=3,
    request_rate=2.0,
    max_concurrency=4,
    input_len=100,
    output_len=3,
    range_ratio=1.0,
    goals_ms={"ttft": 150.0, "tpot": 120.0},
    num_items=4,
    num_repeated=2,
    arguments={"seed": 1},
)


def run() -> Run:
    """Two answers of three tokens and a refusal, in 2 seconds."""
    first = Record(
        due=0.0,
        sent=0.0,
        arrivals=[(0.1, 1), (0.2, 1), (0.3, 1)],
        ended=0.3,
        asked_tokens=3,
        sent_bytes=1_000_000,
        prompt_tokens=110,
        cached_tokens=16,
        item_tokens={"image": 60},
        completion_tokens=3,
        text="abc",
        path=PATH,
    )
    second = Record(
        due=0.5,
        sent=0.51,
        arrivals=[(0.71, 1), (1.01, 2)],
        ended=1.01,
        asked_tokens=4,
        sent_bytes=1_000_000,
        prompt_tokens=90,
        completion_tokens=3,
        text="de",
    )
    third = Record(due=1.0, sent=1.0, ended=1.1, error="HTTP 429: no room")
    return Run(started_at=1_700_000_000.0, began=5.0, records=[first, second, third], seconds=2.0)
