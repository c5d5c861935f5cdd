"""One topology on the one card, through its HTTP API: TTFT, hand-off, and text beside pictures.

The serial floor of a TTFT is what this card took for the towers and for the prefill when each ran
alone, one after the other, with the rows written and read once between them. A cluster may be
below it where it prefills one picture while the next is in the tower.
"""

from __future__ import annotations

import asyncio
import shutil
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx

from bench.gpu import checkpoint, floors, rows
from bench.gpu.card import rates
from bench.gpu.jobs import Facts, Report
from bench.gpu.rows import Row
from bench.gpu.shape import Shape
from bench.gpu.workloads import ClusterPlan
from bench.isolation import run_burst
from bench.serving.cluster import NotMeasured, served_model, serving
from bench.serving.load import chat_body, run_load
from bench.serving.workload import Prompts, Workload
from epd.bench.metrics import first_token_s, percentile
from epd.config.sections import WireConfig

SHM = Path("/dev/shm")
WORKERS = 3
TEXT_TOKENS = 64
TARGET_PICTURES = 4


def measure(
    report: Report,
    facts: Facts,
    *,
    shape: Shape,
    folder: Path,
    device: str,
    topology: str,
    plan: ClusterPlan,
    tcp: bool,
) -> None:
    """All of one topology; where `tcp`, hand-off alone, over sockets."""
    checkpoint.build_once(folder, shape)
    settings = [
        "load_format=dummy",
        f"device={device}",
        *plan.settings,
        *lent(0 if tcp else plan.most_lent_bytes),
    ]
    with serving(folder, topology, settings) as url:
        bench = ClusterBench(report, facts, shape, folder, topology, plan, url)
        if topology != "EPD":
            report.part("hand-off", shape.name, lambda: bench.handoff("TCP" if tcp else "chosen"))
        if not tcp:
            report.part("ttft", shape.name, bench.first_tokens)
            report.part("burst", shape.name, bench.streams_beside_pictures)


def lent(most: int) -> list[str]:
    """Settings of the memory that a worker lets others read, `most` bytes of each kind there is.

    With 0 they use sockets. Shared memory: half of what is free, for all workers together.
    """
    free = shutil.disk_usage(SHM).free if SHM.is_dir() else 0
    sizes = {"shm_bytes": min(most, free // (2 * WORKERS)), "device_bytes": most}
    return [f"wire.{key}={size}" for key, size in sizes.items() if key in WireConfig.model_fields]


class ClusterBench:
    """One running cluster."""

    def __init__(
        self,
        report: Report,
        facts: Facts,
        shape: Shape,
        folder: Path,
        topology: str,
        plan: ClusterPlan,
        url: str,
    ) -> None:
        self._report, self._facts, self._shape, self._plan = report, facts, shape, plan
        self._topology, self._url = topology, url
        self._prompts = Prompts(folder)
        self._model = served_model(url, plan.timeout_s)

    # ---- time to the first token

    def first_tokens(self) -> None:
        """The median of requests that come one after the other."""
        for num in self._plan.pictures:
            bodies = self._bodies("ttft", num, 2, self._plan.requests + 1)
            records = asyncio.run(
                run_load(f"{self._url}/v1", bodies, concurrency=1, timeout_s=self._plan.timeout_s)
            )
            if errors := [record.error for record in records if record.error]:
                raise NotMeasured(errors[0])
            times = [found for record in records[1:] if (found := first_token_s(record))]
            self._first_token(num, times, records[-1].prompt_tokens)

    def _first_token(self, num: int, times: Sequence[float], tokens: int) -> None:
        seconds = statistics.median(times)
        grids = [self._shape.grid(*self._plan.picture)] * num
        floor = self._serial_floor_s(num, grids, tokens)
        measured = rates(self._facts)
        least = None
        if measured is not None:
            least = floors.ttft_floor_s(self._shape, grids, tokens, measured)
        self._report.row(
            Row(
                section=f"ttft {self._topology}",
                model=self._shape.name,
                what=f"{num} of {'x'.join(map(str, self._plan.picture))}, {tokens} tokens",
                value=seconds * 1e3,
                unit="ms",
                floor=None if floor is None else floor * 1e3,
                share=None if floor is None else seconds / floor,
                target=rows.TTFT if num == TARGET_PICTURES else None,
                detail={"seconds": list(times), "floor_at_full_rate_s": least},
            )
        )

    def _serial_floor_s(
        self, num: int, grids: Sequence[tuple[int, int]], tokens: int
    ) -> float | None:
        """None where a stage was not measured alone."""
        encode = self._facts.get(f"{self._shape.name} encode {num} s")
        rate = self._facts.get(f"{self._shape.name} prefill flops_per_s")
        measured = rates(self._facts)
        if encode is None or rate is None or measured is None:
            return None
        moved = 2 * floors.row_bytes(self._shape, grids) / measured.bytes_per_s
        return encode + moved + floors.prefill_flops(self._shape.text, tokens) / rate

    # ---- hand-off

    def handoff(self, way: str) -> None:
        """Rows to prefill and KV to decode, as the request's own path tells it."""
        num = max(self._plan.pictures)
        bodies = self._bodies(f"handoff {way}", num, 4, self._plan.requests + 1)
        paths = [self._path(body) for body in bodies][1:]
        took = [handoff_ms(path) for path in paths]
        first = statistics.median(path["ms"]["first_token"] for path in paths)
        whole = statistics.median(sum(parts.values()) for parts in took)
        ways = chosen_ways(self._get("/cluster"))
        self._report.row(
            Row(
                section=f"hand-off {self._topology}",
                model=self._shape.name,
                what=f"{way}: {', '.join(ways) or 'not told'}",
                value=whole,
                unit="ms",
                floor=None,
                share=whole / first,
                target=None if way == "TCP" else rows.HANDOFF,
                detail={"parts_ms": took, "first_token_ms": first, "paths": paths},
            )
        )

    def _path(self, body: dict[str, Any]) -> dict[str, Any]:
        asked = {**body, "stream": False, "return_path": True}
        del asked["stream_options"]
        response = httpx.post(
            f"{self._url}/v1/chat/completions", json=asked, timeout=self._plan.timeout_s
        )
        if response.is_error:
            raise NotMeasured(f"{response.status_code} {response.text.strip()}")
        found: dict[str, Any] = response.json()["usage"]["epd"]
        return found

    def _get(self, path: str) -> dict[str, Any]:
        response = httpx.get(self._url + path, timeout=self._plan.timeout_s).raise_for_status()
        found: dict[str, Any] = response.json()
        return found

    # ---- text beside pictures

    def streams_beside_pictures(self) -> None:
        """TPOT of text streams while requests with pictures arrive at once."""
        plan = self._plan
        pictures = self._bodies("burst", plan.burst_pictures, 2, plan.burst + 1)
        texts = self._bodies("text", 0, plan.stream_tokens, plan.streams)
        run = asyncio.run(
            run_burst(
                f"{self._url}/v1",
                self._topology,
                warm=[pictures[0], {**texts[0], "max_tokens": 4}],
                streams=texts,
                burst=pictures[1:],
                before_s=plan.before_s,
                timeout_s=plan.timeout_s,
            )
        )
        during = percentile(run.per_token_s(), 99)
        gaps = run.gaps_s(inside=False)
        # Not their median, which is 0 where tokens are read together.
        alone = statistics.fmean(gaps) if gaps else None
        if during is None:
            raise NotMeasured("no stream had two tokens while the burst lasted")
        self._report.row(
            Row(
                section=f"burst {self._topology}",
                model=self._shape.name,
                what=f"P99 TPOT of {plan.streams} streams, {plan.burst} x {plan.burst_pictures}"
                " pictures; floor: alone",
                value=during * 1e3,
                unit="ms",
                floor=None if alone is None else alone * 1e3,
                share=None if not alone else during / alone,
                detail={
                    "per_token_s": run.per_token_s(),
                    "gap_p99_s": percentile(run.gaps_s(inside=True), 99),
                    "burst_s": run.ended - run.began,
                },
            )
        )

    def _bodies(self, seed: str, pictures: int, max_tokens: int, num: int) -> list[dict[str, Any]]:
        workload = Workload(
            prompt_tokens=TEXT_TOKENS + 4 * pictures,
            images=pictures,
            max_tokens=max_tokens,
            picture=self._plan.picture,
            seed=f"{self._topology} {seed} {pictures}",
        )
        return [
            chat_body(self._model, self._prompts.messages(workload, number), max_tokens)
            for number in range(num)
        ]


def handoff_ms(path: dict[str, Any]) -> dict[str, float]:
    """What a request waited for on its way between stages: rows of its slowest item, then KV.

    Rows, from the end of their tower to where prefill can read them, whatever was done for them
    early. KV travels while prefill runs; only what is left of it after the last chunk counts.
    """
    rows_ms = [_ended(item, "transfer") - _ended(item, "encode") for item in _moved(path)]
    return {"rows": max([0.0, *rows_ms]), "kv": path["decode"]["ms"].get("handoff", 0.0)}


def _moved(path: dict[str, Any]) -> list[dict[str, Any]]:
    return [item for item in path["items"] if {"transfer", "encode"} <= item["ms"].keys()]


def _ended(item: dict[str, Any], activity: str) -> float:
    """Milliseconds from the request's arrival on."""
    return float(item["began_ms"][activity] + item["ms"][activity])


def chosen_ways(cluster: dict[str, Any]) -> list[str]:
    """The ways that workers say they hand over by, each once; none where they do not say."""
    said = [worker.get("transfers", {}) for worker in cluster["workers"]]
    return sorted({way for transfers in said for way in transfers.values()})
