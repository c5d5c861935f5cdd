"""Load tools that need no CUDA, against a real cluster: every request counts as a success."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.clients.environments import program
from tests.clients.running import needs, run
from tests.cluster.running import Cluster

pytestmark = [pytest.mark.clients, pytest.mark.timeout(600)]

Argv = list[str | Path]

NUM_REQUESTS = 6
NUM_TOKENS = 8


def _json(path: Path) -> Any:
    return json.loads(path.read_text())


@needs("aiperf")
def test_aiperf_measures_pictures_over_streams(
    cluster: Cluster, checkpoint: Path, tmp_path: Path
) -> None:
    argv: Argv = [program("aiperf", "aiperf"), "profile", "--model", cluster.model]
    argv += ["--url", cluster.url, "--endpoint-type", "chat", "--streaming"]
    argv += ["--tokenizer", checkpoint, "--isl", "32", "--osl", str(NUM_TOKENS)]
    argv += ["--image-width-mean", "64", "--image-height-mean", "64", "--image-batch-size", "1"]
    argv += ["--request-count", str(NUM_REQUESTS), "--concurrency", "2", "--workers-max", "1"]
    argv += ["--extra-inputs", "ignore_eos:true", "--use-server-token-count"]
    argv += ["--no-gpu-telemetry", "--no-server-metrics", "--ui", "none", "--random-seed", "1"]
    run([*argv, "--artifact-dir", tmp_path / "told"], tmp_path)

    told = _json(next((tmp_path / "told").rglob("profile_export_aiperf.json")))
    assert told["request_count"]["avg"] == NUM_REQUESTS
    assert not told.get("error_request_count")
    assert told["output_sequence_length"]["avg"] == NUM_TOKENS
    assert told["time_to_first_token"]["avg"] > 0


@needs("guidellm")
def test_guidellm_counts_tokens_as_they_come(
    cluster: Cluster, checkpoint: Path, tmp_path: Path
) -> None:
    argv: Argv = [program("guidellm", "guidellm"), "run", "--disable-console-interactive"]
    argv += ["--backend", f"kind=openai_http,target={cluster.url},http2=false"]
    argv += ["--profile", "kind=concurrent,streams=2"]
    argv += ["--constraint", f"kind=max_requests,count={NUM_REQUESTS}"]
    argv += ["--tokenizer", f"kind=huggingface_auto,model={checkpoint}"]
    argv += ["--data", f"kind=synthetic_text,prompt_tokens=32,output_tokens={NUM_TOKENS}"]
    run([*argv, "--output", f"kind=json,path={tmp_path / 'told.json'}"], tmp_path)

    metrics = _json(tmp_path / "told.json")["benchmarks"][0]["metrics"]
    totals = metrics["request_totals"]
    assert (totals["successful"], totals["errored"]) == (NUM_REQUESTS, 0)
    assert metrics["output_token_count"]["successful"]["mean"] == NUM_TOKENS


@needs("evalscope")
@pytest.mark.parametrize("dataset", ["random", "random_vl"])
def test_evalscope_measures_text_and_pictures(
    cluster: Cluster, checkpoint: Path, tmp_path: Path, dataset: str
) -> None:
    argv: Argv = [program("evalscope", "evalscope"), "perf", "--model", cluster.model]
    argv += ["--url", f"{cluster.url}/v1/chat/completions", "--api", "openai"]
    argv += ["--dataset", dataset, "--tokenizer-path", checkpoint, "--seed", "1"]
    argv += ["--min-prompt-length", "100", "--max-prompt-length", "120"]
    argv += ["--image-width", "64", "--image-height", "64"]
    argv += ["--min-tokens", str(NUM_TOKENS), "--max-tokens", str(NUM_TOKENS)]
    argv += ["--extra-args", '{"ignore_eos": true}', "--parallel", "2"]
    argv += ["--number", str(NUM_REQUESTS), "--outputs-dir", tmp_path / "told"]
    run(argv, tmp_path, cwd=tmp_path)

    told = _json(next((tmp_path / "told").rglob("benchmark_summary.json")))
    assert told["Success Requests"] == NUM_REQUESTS
