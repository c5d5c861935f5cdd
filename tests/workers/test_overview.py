"""The cluster as an operator sees it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from epd.cli.operator import HEAD, overview
from epd.cluster import Membership
from epd.types import Gpu, Rank
from epd.wire.messages import PROTOCOL_VERSION
from epd.workers.overview import Overview, short
from tests.cluster.samples import decode, encode, prefill

FINGERPRINT = {"protocol": str(PROTOCOL_VERSION), "weights": "w1", "dtype": "float32"}


def seen() -> Overview:
    membership = Membership({})
    found = Overview(membership)
    for member in (encode(pool="p"), replace(decode(pool="p"), attention="sdpa")):
        membership.join(member, FINGERPRINT)
        found.joined(member, 10.0)
    membership.drain("D")
    decoder = replace(decode(), attention="sdpa")
    found.reported(decoder, {"kv_blocks": 10, "kv_blocks_used": 3, "requests": 2})
    found.reported(encode(), {"items": 4, "cache_bytes": 3 << 20, "step_age_ms": 7})
    return found


def test_every_worker_has_its_role_state_version_and_load() -> None:
    first, second = seen().rows(now=75.0)
    assert (first["name"], first["stages"], first["state"]) == ("D", ["decode"], "draining")
    assert (first["requests"], first["kv_used"], first["kv_cached"]) == (2, 0.3, 0.0)
    assert first["attention"] == "sdpa"
    assert (second["name"], second["state"], second["modalities"]) == ("E", "serving", ["image"])
    assert (second["items"], second["step_age_ms"], second["age_s"]) == (4, 7, 65.0)
    assert second["version"] == {"weights": "w1", "dtype": "float32"}
    assert first["pool"] == second["pool"] == short("p") != short("q")


def test_nothing_that_would_let_a_stranger_in_is_shown() -> None:
    for row in seen().rows(now=75.0):
        assert not {"incarnation", "control", "bulk", "segment", "gpu"} & set(row)
        assert "handle" not in str(row) and "lease" not in str(row)


def test_the_way_between_two_workers_is_shown() -> None:
    """By what both said of themselves, to each worker that this one hands over to."""
    membership = Membership({})
    found = Overview(membership)
    gpu = Gpu(device="GPU-1", reaches=("GPU-1",), lease="l", handle=b"h")
    here: dict[str, Any] = {"host": "a", "segment": "s", "pool": "p"}
    members = (
        replace(encode(pool="p"), **here, gpu=gpu),
        replace(prefill("P", pool="p"), **here, gpu=gpu),
        replace(prefill("Q", pool="p"), **here),
        replace(prefill("R", pool="p"), **{**here, "host": "b"}),
        replace(prefill("S", pool="p"), **here, ranks=(Rank(segment="t"),)),
        replace(decode(pool="p"), **here, gpu=gpu),
        replace(decode("T", pool="p"), **here, ranks=(Rank(),)),
    )
    for pid, member in enumerate(members):
        membership.join(replace(member, pid=pid), FINGERPRINT)
    rows = {row["name"]: row for row in found.rows(0.0)}
    shared = "shared memory"
    assert rows["E"]["transfers"] == {"P": "cuda_ipc", "Q": shared, "R": "frames", "S": shared}
    assert rows["P"]["transfers"] == {"D": "cuda_ipc", "T": shared}
    assert rows["Q"]["transfers"] == {"D": shared, "T": shared}
    assert rows["S"]["transfers"] == {"D": shared, "T": f"{shared}, 2 ranks each their own"}
    assert rows["D"]["transfers"] == {}
    assert (rows["E"]["device"], rows["Q"]["device"]) == ("GPU-1", "cpu")


def test_the_table_has_a_line_per_worker() -> None:
    cluster = {"model": "m", "gateway": "g", "ready": True, "requests": 3, "waiting": 1}
    about, head, decodes, encodes = overview({**cluster, "workers": seen().rows(75.0)}).split("\n")
    assert about == "m at g: ready, 3 requests, 1 of them waiting"
    assert head.split() == list(HEAD)
    assert decodes.split() == ["D", "decode", "draining", "-", short("p"), "2", "30%", "0%", "1m"]
    assert encodes.split()[:4] == ["E", "encode", "serving", "image"]
    assert encodes.split()[5:] == ["4", "-", "3", "MiB", "1m"]


def test_who_has_gone_is_shown_no_more() -> None:
    membership = Membership({})
    found = Overview(membership)
    membership.join(encode(), FINGERPRINT)
    found.joined(encode(), 0.0)
    membership.leave("E", "1")
    found.gone(encode())
    assert found.rows(1.0) == []


def test_rows_that_stay_in_their_process_are_shown_as_such() -> None:
    membership = Membership({})
    found = Overview(membership)
    for member in (encode(pool="p"), prefill("P", pool="p")):
        membership.join(replace(member, host="a", pid=7), FINGERPRINT)
    rows = {row["name"]: row for row in found.rows(0.0)}
    assert rows["E"]["transfers"] == {"P": "in process"}
