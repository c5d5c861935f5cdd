"""Every answer proves its path: who did what for it, and how long that took."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from epd.cli.main import main
from epd.observe.reported import GAUGES
from tests.cluster.given import audio, image, video
from tests.cluster.running import Cluster, encoded, image_part, picture
from tests.media.site import Site, body

NO_REFERENCE: Any = None
KINDS: dict[str, dict[str, Any]] = {
    "image": image(1).sent(NO_REFERENCE),
    "audio": audio(1.1, 1).sent(NO_REFERENCE),
    "video": video(1).sent(NO_REFERENCE),
}
ENCODE = {"queue", "decode", "preprocess", "encode", "transfer"}
PREFILL = {"queue", "prefill", "wait", "merge"}
DECODE = {"transfer", "handoff", "decode"}
SALT = "a-salt-that-is-no-label"


@pytest.fixture(scope="module")
def cluster(path_of: Callable[[str], Path]) -> Iterator[Cluster]:
    settings = ("media.allow_private_addresses=true", "log_level=debug", "log_format=json")
    running = Cluster(path_of("qwen2_5_omni"), "1E1P1D", *settings)
    yield running
    assert running.stop() == 0


def ask(cluster: Cluster, *parts: dict[str, Any], **fields: Any) -> httpx.Response:
    content = [*parts, {"type": "text", "text": "What is it? " * 8}]
    asked = {
        "model": cluster.model,
        "messages": [{"role": "user", "content": content}],
        "max_tokens": 6,
        "ignore_eos": True,
        "return_path": True,
        **fields,
    }
    response = cluster.post(asked)
    assert response.status_code == 200, response.text
    return response


def path_of_answer(response: httpx.Response) -> dict[str, Any]:
    found: dict[str, Any] = response.json()["usage"]["epd"]
    return found


def check_plausible(path: dict[str, Any]) -> None:
    """Moments follow each other, and no stage had more time than there was."""
    ms = path["ms"]
    moments = [ms["layouts"], ms["admitted"], ms["first_token"], ms["total"]]
    assert moments == sorted(moments) and moments[0] > 0
    for item in path["items"]:
        own = sum(took for name, took in item["ms"].items() if name != "transfer")
        assert 0 < own <= ms["total"]
    prefill = path["prefill"]["ms"]
    assert prefill["prefill"] > 0
    assert prefill["queue"] + prefill["prefill"] + prefill.get("wait", 0) <= ms["total"]
    assert all(0 <= took <= ms["total"] for took in path["decode"]["ms"].values())


def test_a_load_test_tells_the_stages_of_some_of_each_kind(
    cluster: Cluster, tmp_path: Path
) -> None:
    """`epd bench`: text, pictures, videos and sounds, two of which come again."""
    file = tmp_path / "out.jsonl"
    argv = "--dataset-name mixed --num-prompts 8 --max-concurrency 4 --media-hit-rate 0.5 "
    argv += "--media-pool 1 --random-input-len 24 --random-output-len 4 --random-range-ratio 1 "
    argv += "--image-resolution 56x56 --video-resolution 56x56 --video-frames 4 --audio-seconds 1 "
    argv += f"--seed 7 --disable-tqdm --base-url {cluster.url} --output-file {file}"
    assert main(["bench", *argv.split()]) == 0
    found = json.loads(file.read_text())
    assert (found["completed"], found["failed"], found["wrong_lengths"]) == (8, 0, 0)
    assert found["items"] == {"asked": 6, "repeated": 3, "cached": 3}
    assert found["total_input_vision_tokens"] > 0 < found["total_input_audio_tokens"]
    told = {*(f"encode.{one}" for one in ENCODE - {"transfer"}), "prefill.transfer"}
    told |= {f"prefill.{one}" for one in PREFILL} | {f"decode.{one}" for one in DECODE}
    assert told <= set(found["stages_ms"])


@pytest.mark.parametrize("kind", KINDS)
def test_an_item_of_each_kind_shows_every_stage(cluster: Cluster, kind: str) -> None:
    response = ask(cluster, KINDS[kind])
    path = path_of_answer(response)
    check_plausible(path)
    (item,) = path["items"]
    assert (item["modality"], item["encoder"]) == (kind, "encode-0")
    assert item["ms"].keys() == ENCODE and item["ms"]["encode"] > 0
    assert 0 < item["rows"] == item["rows_sent"] and item["row_bytes"] > 0 and item["bytes"] > 0
    assert (item["cached"], item["rows_from"], item["attempts"]) == (False, "tower", 1)
    assert path["prefill"]["worker"] == "prefill-0" and path["prefill"]["ms"].keys() == PREFILL
    assert path["decode"]["worker"] == "decode-0" and path["decode"]["ms"].keys() == DECODE
    assert path["decode"]["kv_bytes"] > 0 and path["decode"]["ms"]["decode"] > 0
    assert (path["attempts"], path["retries"]) == (1, 0)
    headers = response.headers
    assert (headers["x-epd-encoders"], headers["x-epd-retries"]) == ("encode-0", "0")
    assert headers["x-epd-cache-hits"] == "0"
    assert headers["x-epd-request-id"] == path["request_id"]
    timing = set(re.findall(r"([a-z-]+);dur=[\d.]+", headers["server-timing"]))
    assert timing >= {"encode-encode", "prefill-prefill", "decode-handoff", "first-token"}


def test_text_alone_shows_no_item(cluster: Cluster) -> None:
    path = path_of_answer(ask(cluster))
    check_plausible(path)
    assert path["items"] == []
    assert path["prefill"]["ms"].keys() == {"queue", "prefill"}


def test_a_second_turn_says_what_was_cached_and_another_tenant_sees_none_of_it(
    cluster: Cluster,
) -> None:
    part = image_part(picture(84, 84, 7))
    first = path_of_answer(ask(cluster, part, cache_salt=SALT))
    response = ask(cluster, part, cache_salt=SALT)
    again = path_of_answer(response)
    assert first["items"][0]["cached"] is False and again["items"][0]["cached"] is True
    assert response.headers["x-epd-cache-hits"] == "1"
    assert "encode" not in again["items"][0]["ms"]
    assert again["prefill"]["cached_tokens"] > first["prefill"]["cached_tokens"]
    other = path_of_answer(ask(cluster, part, cache_salt=SALT + "2"))
    assert other["items"][0]["cached"] is False


def test_items_that_come_at_once_share_one_tower(cluster: Cluster) -> None:
    part = image_part(picture(84, 84, 8))
    items = path_of_answer(ask(cluster, part, part))["items"]
    origins = sorted(item["rows_from"] for item in items)
    assert origins in (["shared", "tower"], ["cache", "tower"])


def test_a_fetched_item_says_how_long_that_took(cluster: Cluster) -> None:
    data = encoded(picture(84, 84, 9))
    with closing(Site()) as site:
        site.pages["/one.png"] = body(data)
        part = {"type": "image_url", "image_url": {"url": f"{site.url}/one.png"}}
        path = path_of_answer(ask(cluster, part))
    (item,) = path["items"]
    assert item["ms"]["fetch"] > 0 and item["bytes"] == len(data)


def test_a_stop_string_does_not_hide_the_time_of_decoding(cluster: Cluster) -> None:
    """The gateway ends it; decode has not said how long it took."""
    text = ask(cluster, max_tokens=40).json()["choices"][0]["message"]["content"]
    stop = text[len(text) // 2 :][:2]
    path = path_of_answer(ask(cluster, max_tokens=40, stop=stop))
    check_plausible(path)
    assert path["decode"]["ms"]["decode"] > 0


def test_nothing_that_a_client_wrote_becomes_a_label(cluster: Cluster) -> None:
    """Nor does a request's own name; and what is counted was there."""
    word = "client-wrote-this"
    part = {**image_part(picture(84, 84, 10)), "uuid": word}
    response = ask(cluster, part, cache_salt=word, user=word, metadata={word: word})
    wrong = {"model": word, "messages": [{"role": "user", "content": word}]}
    assert cluster.post(wrong).status_code == 404
    url = {"type": "image_url", "image_url": {"url": f"http://{word}.invalid/x.png"}}
    unknown = {"model": cluster.model, "messages": [{"role": "user", "content": [url]}]}
    assert cluster.post(unknown, headers={"traceparent": word}).status_code >= 400
    page = httpx.get(f"{cluster.url}/metrics", timeout=30).text
    assert word not in page and SALT not in page
    assert response.headers["x-epd-request-id"] not in page
    assert 'epd_activity_seconds_count{activity="encode",modality="image",stage="encode"}' in page
    assert re.search(r'epd_failures_total\{cause="[a-z_]+"\} 1', page)


def test_every_gauge_that_workers_report_is_explained(cluster: Cluster) -> None:
    cluster.wait_until_idle()
    names = {re.split(r"epd_worker_|\{", name)[1] for name in _worker_samples(cluster)}
    assert {name for name in names if not name.startswith("links_")} <= GAUGES.keys()
    usage = [v for n, v in cluster.metrics().items() if n.startswith("epd_kv_cache_usage_perc{")]
    assert usage == [0, 0]


def test_a_request_can_be_followed_through_the_logs_of_all_stages(cluster: Cluster) -> None:
    request_id = ask(cluster, image_part(picture(84, 84, 11))).headers["x-epd-request-id"]
    cluster.wait_until_idle()
    lines = [json.loads(line) for line in cluster.log if line.startswith("{")]
    mine = {line["process"] for line in lines if line.get("request") == request_id}
    assert mine == {"gateway-0", "encode-0", "prefill-0", "decode-0"}


def test_one_engine_process_says_the_same(path_of: Callable[[str], Path]) -> None:
    """Fused workers speak for both stages; no KV is handed over."""
    cluster = Cluster(path_of("qwen2_5_vl"), "EPD")
    path = path_of_answer(ask(cluster, image_part(picture(84, 84, 1))))
    assert cluster.stop() == 0
    check_plausible(path)
    (item,) = path["items"]
    assert item["ms"].keys() == ENCODE and item["rows_sent"] == item["rows"]
    assert path["prefill"]["worker"] == path["decode"]["worker"]
    assert path["prefill"]["ms"].keys() == PREFILL
    assert path["decode"]["ms"].keys() == {"decode"} and path["decode"]["kv_bytes"] == 0


def _worker_samples(cluster: Cluster) -> list[str]:
    return [name for name in cluster.metrics() if name.startswith("epd_worker_")]
