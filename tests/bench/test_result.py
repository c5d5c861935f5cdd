"""One JSON object per run: the known keys, and numbers checked by hand."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from epd.bench.load import Run
from epd.bench.result import details, result
from tests.bench.ready import ASKED, run

KNOWN = """tag backend dataset_name request_rate max_concurrency sharegpt_output_len
random_input_len random_output_len random_range_ratio server_info duration completed
total_input_tokens total_input_text_tokens total_input_vision_tokens total_output_tokens
total_output_tokens_retokenized request_throughput input_throughput output_throughput
total_throughput concurrency accept_length max_output_tokens_per_s max_concurrent_requests"""
TIMES = {
    f"{part}_{time}_ms"
    for part in ("mean", "median", "std", "p90", "p95", "p99")
    for time in ("e2e_latency", "ttft", "tpot", "itl")
}
GOALS = "goodput_slos_ms request_goodput slo_attainment slo_attainment_by_metric"
OURS = """max_itl_ms total_input_audio_tokens date model_id base_url num_prompts burstiness seed
interrupted failed failures wrong_lengths total_cached_tokens stages_ms items generator
arguments"""
DETAILS = "input_lens output_lens ttfts itls generated_texts errors"


def test_the_keys_are_those_of_sglangs_tool_and_these() -> None:
    expected = {*KNOWN.split(), *TIMES, *GOALS.split(), *OURS.split()}
    assert set(result(ASKED, run())) == expected
    without = result(replace(ASKED, goals_ms={}), run())
    assert set(without) == expected - set(GOALS.split())
    assert set(details(run())) == {*DETAILS.split(), "started_at", "requests"}


def test_a_run_is_counted_by_the_servers_usage() -> None:
    found = result(ASKED, run())
    assert (found["completed"], found["failed"]) == (2, 1)
    assert found["failures"] == {"HTTP 429": {"count": 1, "first": "HTTP 429: no room"}}
    assert found["wrong_lengths"] == 1
    assert (found["total_input_tokens"], found["total_output_tokens"]) == (200, 6)
    assert (found["total_input_text_tokens"], found["total_input_vision_tokens"]) == (140, 60)
    assert found["total_cached_tokens"] == 16
    assert (found["request_throughput"], found["output_throughput"]) == (1.0, 3.0)
    assert (found["input_throughput"], found["total_throughput"]) == (100.0, 103.0)
    assert found["concurrency"] == pytest.approx((0.3 + 0.5) / 2)
    assert found["max_concurrent_requests"] == 1
    assert found["max_output_tokens_per_s"] == 4


def test_times_are_milliseconds_of_whole_answers() -> None:
    found = result(ASKED, run())
    assert found["mean_ttft_ms"] == pytest.approx(150.0)
    assert found["p90_ttft_ms"] == pytest.approx(190.0)
    assert found["mean_tpot_ms"] == pytest.approx((100.0 + 150.0) / 2)
    assert found["mean_itl_ms"] == pytest.approx((100 + 100 + 150 + 150) / 4)
    assert found["max_itl_ms"] == pytest.approx(150.0)
    assert found["std_e2e_latency_ms"] == pytest.approx(100.0)


def test_goals_items_stages_and_the_generators_own_delay_stand_beside_them() -> None:
    found = result(ASKED, run())
    assert found["request_goodput"] == 0.5
    assert found["slo_attainment_by_metric"] == pytest.approx({"ttft": 1 / 3, "tpot": 1 / 3})
    assert found["items"] == {"asked": 4, "repeated": 2, "cached": 1}
    assert list(found["stages_ms"]) == [
        "encode.fetch",
        "encode.encode",
        "prefill.queue",
        "prefill.prefill",
        "decode.decode",
    ]
    assert found["stages_ms"]["encode.encode"]["mean"] == 10.0
    assert found["generator"]["max_lateness_ms"] == pytest.approx(10.0)
    assert found["generator"]["sent_mb_per_s"] == 1.0


def test_what_a_server_does_not_tell_is_not_known() -> None:
    one = run()
    for record in one.records:
        record.path, record.item_tokens = None, {}
    found = result(ASKED, one)
    assert found["stages_ms"] == {}
    assert found["items"]["cached"] is None
    assert found["total_input_text_tokens"] is found["total_input_vision_tokens"] is None


def test_a_run_without_answers_has_a_result_too() -> None:
    found = result(ASKED, Run(started_at=0.0, began=0.0, records=[], seconds=0.0))
    assert (found["completed"], found["failed"], found["request_throughput"]) == (0, 0, None)
    json.dumps(found, allow_nan=False)


def test_details_have_every_moment() -> None:
    found = details(run())
    assert found["input_lens"] == [110, 90, 0]
    assert found["output_lens"] == [3, 3, 0]
    assert found["ttfts"] == pytest.approx([0.1, 0.2, 0.0])
    assert found["errors"] == ["", "", "HTTP 429: no room"]
    assert found["requests"][1]["arrivals"] == [(0.71, 1), (1.01, 2)]
    assert "text" not in found["requests"][0]
